"""Escaping of text that others chose, such as the names of schemes and corpora: one function for each format.

A format that is added gets its function here.
"""

import hashlib
import html as _html
import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of Unicode
_SPACES = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")

_LATEX = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    "|": r"$|$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    "×": r"$\times$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "◊": r"$^\diamond$",
    "‖": r"$^\|$",
}

# What GitHub's markdown gives a meaning to. Underscores inside a word, brackets that no link follows, and comparisons
# have none and stay readable.
_MARKDOWN = re.compile(
    r"""[\\`*$~]
    | (?<![^\W_])_ | _(?![^\W_])      # an underscore that is not between two letters or digits
    | \](?=[(\[:]) | !(?=\[)          # links, references and images
    | <(?=[A-Za-z/!?])                # HTML and links
    | &(?=\#?\w+;)                    # entities
    """,
    re.VERBOSE,
)


def printable(text: str) -> str:
    """Returns text on one line without control characters, lone surrogates and marks of direction."""
    if text.isascii() and text.isprintable():
        return text
    text = _SPACES.sub(" ", text)
    return "".join("\ufffd" if unicodedata.category(letter) in _UNPRINTABLE else letter for letter in text)


def latex(text: str) -> str:
    """Returns text for LaTeX in text mode."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def latex_line(cells: Iterable[str]) -> str:
    """Returns a line of a LaTeX table, given the LaTeX of its cells."""
    line = " & ".join(cells) + r" \\"
    # The command before a line takes an asterisk or brackets as its argument.
    return f"{{}}{line}" if line.startswith(("[", "*")) else line


def markdown(text: str) -> str:
    """Returns text for GitHub's markdown, inside a line; in a cell of a table, `|` has a meaning too."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", printable(text))


def html(text: str) -> str:
    """Returns text for HTML, inside an element or a quoted attribute."""
    return _html.escape(printable(text))


def html_json(value: Any) -> str:
    """Returns a value as JSON inside a script element of HTML, whose text has no entities: no tag begins or ends in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"})


def csv(text: str) -> str:
    """Returns text that spreadsheets do not take for a formula."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def figure(text: str) -> str:
    """Returns a label for matplotlib, which leaves labels that begin with an underscore out of legends."""
    text = printable(text)
    return f" {text}" if text.startswith("_") else text


def terminal(text: str) -> str:
    """Returns text for rich, which takes words in brackets for styles."""
    from rich.markup import escape

    return escape(printable(text))


def file_name(text: str, most: int = 120) -> str:
    """Returns text as the name of a file; text that cannot be one gets a checksum, so that names stay distinct."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", text).lstrip(".")
    if name == text and 0 < len(name) <= most:
        return name
    return f"{name[:most]}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
