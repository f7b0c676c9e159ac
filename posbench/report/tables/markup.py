"""Tables as markdown and LaTeX; the csv holds their unrounded numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

_MARKS = ["†", "‡", "§", "¶", "‖", "#"]
_LATEX = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "–": "--",
    "<": "$<$",
    "×": r"$\times$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "‖": r"$^\|$",
}


@dataclass(frozen=True)
class TableCell:
    """Text of a cell, in bold if `best`, with the footnote `note`."""

    text: str
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table to print.

    Attributes:
        numbers: unrounded numbers, for the csv.
        more: tables of the same numbers that are printed below.
        words: columns of the header that hold words and are aligned at the left.
    """

    name: str
    title: str
    caption: str
    header: Sequence[str]
    body: Sequence[Sequence[TableCell]]
    numbers: pd.DataFrame = field(repr=False)
    more: Sequence["Table"] = ()
    words: Sequence[str] = ()

    def left(self) -> list[bool]:
        """Returns for each column whether it is aligned at the left; the first is."""
        return [place == 0 or name in self.words for place, name in enumerate(self.header)]

    def footnotes(self) -> dict[str, str]:
        """Returns the mark of each footnote, in order of appearance."""
        notes = dict.fromkeys(cell.note for line in self.body for cell in line if cell.note)
        return {
            note: _MARKS[place % len(_MARKS)] * (place // len(_MARKS) + 1) for place, note in enumerate(notes)
        }


def to_markdown(table: Table) -> str:
    """Returns a table in markdown, with footnotes and caption."""
    marks = table.footnotes()

    def formatted(cell: TableCell) -> str:
        text = f"**{cell.text}**" if cell.best else cell.text
        return text.replace("|", "\\|") + marks.get(cell.note, "")

    rule = "".join(" :-- |" if left else " --: |" for left in table.left())
    lines = [f"| {' | '.join(table.header)} |", f"|{rule}"]
    lines += [f"| {' | '.join(formatted(cell) for cell in line)} |" for line in table.body]
    notes = [f"{mark} {note}  " for note, mark in marks.items()]
    text = "\n".join([f"**{table.title}**", "", *lines, "", *notes, "", table.caption, ""])
    return "\n".join([text, *(to_markdown(other) for other in table.more)])


def to_latex(table: Table) -> str:
    """Returns a table for the LaTeX package booktabs."""
    marks = table.footnotes()

    def formatted(cell: TableCell) -> str:
        text = _escaped(cell.text)
        return (rf"\textbf{{{text}}}" if cell.best else text) + _escaped(marks.get(cell.note, ""))

    lines = [" & ".join(formatted(cell) for cell in line) + r" \\" for line in table.body]
    notes = [rf"\\ \footnotesize {_escaped(mark)} {_escaped(note)}" for note, mark in marks.items()]
    columns = "".join("l" if left else "r" for left in table.left())
    text = "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(f'{table.title}. {table.caption}')}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(_escaped(name) for name in table.header) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )
    return "\n".join([text, *(to_latex(other) for other in table.more)])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
