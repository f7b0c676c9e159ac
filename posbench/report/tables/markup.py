"""A table as markdown and as LaTeX; its csv is the numbers that it was made of, unrounded."""

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
    text: str
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    caption: str
    header: Sequence[str]
    body: Sequence[Sequence[TableCell]]
    numbers: pd.DataFrame = field(repr=False)
    more: Sequence["Table"] = ()  # printed under it, of the same numbers
    words: Sequence[str] = ()  # columns of the header that hold words, which stand at the left

    def left(self) -> list[bool]:
        """Whether a column stands at the left: the first does."""
        return [place == 0 or name in self.words for place, name in enumerate(self.header)]

    def footnotes(self) -> dict[str, str]:
        """The marks of the notes, in the order in which a reader meets them."""
        notes = dict.fromkeys(cell.note for line in self.body for cell in line if cell.note)
        return {
            note: _MARKS[place % len(_MARKS)] * (place // len(_MARKS) + 1) for place, note in enumerate(notes)
        }


def to_markdown(table: Table) -> str:
    marks = table.footnotes()

    def written(cell: TableCell) -> str:
        text = f"**{cell.text}**" if cell.best else cell.text
        return text.replace("|", "\\|") + marks.get(cell.note, "")

    rule = "".join(" :-- |" if left else " --: |" for left in table.left())
    lines = [f"| {' | '.join(table.header)} |", f"|{rule}"]
    lines += [f"| {' | '.join(written(cell) for cell in line)} |" for line in table.body]
    notes = [f"{mark} {note}  " for note, mark in marks.items()]
    printed = "\n".join([f"**{table.title}**", "", *lines, "", *notes, "", table.caption, ""])
    return "\n".join([printed, *(to_markdown(other) for other in table.more)])


def to_latex(table: Table) -> str:
    """A table of the booktabs package."""
    marks = table.footnotes()

    def written(cell: TableCell) -> str:
        text = _escaped(cell.text)
        return (rf"\textbf{{{text}}}" if cell.best else text) + _escaped(marks.get(cell.note, ""))

    lines = [" & ".join(written(cell) for cell in line) + r" \\" for line in table.body]
    notes = [rf"\\ \footnotesize {_escaped(mark)} {_escaped(note)}" for note, mark in marks.items()]
    columns = "".join("l" if left else "r" for left in table.left())
    printed = "\n".join(
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
    return "\n".join([printed, *(to_latex(other) for other in table.more)])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
