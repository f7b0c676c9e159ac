"""Settings of Sphinx: the site is README.md and its neighbours, docs/, and pages that are written from the code.

The sources stand in the root of the repository, so that a link between two pages is the same here and on GitHub.
`make docs` builds the site without a network: the theme has its own styles and no fonts, and search is a script of Sphinx.
"""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from pygments.lexers.shell import BashLexer
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

project = "posbench"
author = "posbench contributors"
release = version_of("posbench")
html_title = "posbench"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/generated/*.md",
    "results/LOG.md",
    "results/published/README.md",
    "results/published/reproductions.md",
]
exclude_patterns = [".*", "build", "tests", "posbench", "results/models", "results/cells"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wrap.css"]
html_extra_path = ["redirect"]
html_show_copyright = False
html_copy_source = html_show_sourcelink = False
myst_heading_anchors = 4
myst_links_external_new_tab = False
default_role = "code"
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes", "params_style")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True


def write_generated(app: Sphinx) -> None:
    """Writes the pages that come from the code."""
    import gallery
    import prompts

    folder = ROOT / "docs" / "generated"
    gallery.write(folder)
    prompts.write(folder)


def unlink_folders(app: Sphinx, docname: str, source: list[str]) -> None:
    """Removes links to folders, which GitHub shows and a site has no page for."""

    def text(link: re.Match[str]) -> str:
        return link[1] if (ROOT / docname).parent.joinpath(link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)#:]+)\)", text, source[0])


SECTIONS = ("Args", "Attributes", "Class attributes", "Returns", "Yields", "Raises")


def as_rst(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Makes a docstring in plain text reStructuredText: indented lists become literal, stars are no emphasis."""
    literal = -1  # indentation of the line above a literal block
    written: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= literal:
            literal = -1
        is_section = indent == 0 and line.rstrip(":") in SECTIONS
        # An indented line outside a section begins a list or a formula.
        opens = line.endswith(":") and not is_section and following.startswith(" " * (indent + 1))
        if literal >= 0:
            written.append(line)
            continue
        text = line if re.match(r" *\*+\w+:", line) else re.sub(r"(?<!\\)([*|])", r"\\\1", line)
        written += [f"{text}:", ""] if opens else [text]
        literal = indent if opens else literal
    lines[:] = written


def setup(app: Sphinx) -> None:
    app.add_lexer("sbatch", BashLexer)
    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", unlink_folders)
    app.connect("autodoc-process-docstring", as_rst, priority=400)
    app.connect("config-inited", lambda app, config: write_generated(app))
