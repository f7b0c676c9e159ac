"""Tables as markdown and LaTeX; the csv holds their unrounded numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from posbench import escaping

_MARKS = ["†", "‡", "§", "¶", "‖", "◊"]  # none begins a block of markdown


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
        about: what the rows of the table have in common, by column; "metric", its metric; and "kind", such as "values".
    """

    name: str
    title: str
    caption: str
    header: Sequence[str]
    body: Sequence[Sequence[TableCell]]
    numbers: pd.DataFrame = field(repr=False)
    more: Sequence["Table"] = ()
    words: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

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
        text = _markdown_cell(cell.text)
        return (f"**{text}**" if cell.best else text) + marks.get(cell.note, "")

    rule = "".join(" :-- |" if left else " --: |" for left in table.left())
    lines = [f"| {' | '.join(map(_markdown_cell, table.header))} |", f"|{rule}"]
    lines += [f"| {' | '.join(formatted(cell) for cell in line)} |" for line in table.body]
    notes = [f"{mark} {escaping.markdown(note)}  " for note, mark in marks.items()]
    text = "\n".join(
        [
            f"**{escaping.markdown(table.title)}**",
            "",
            *lines,
            "",
            *notes,
            "",
            escaping.markdown(table.caption),
            "",
        ]
    )
    return "\n".join([text, *(to_markdown(other) for other in table.more)])


def to_latex(table: Table) -> str:
    """Returns a table for the LaTeX package booktabs."""
    marks = table.footnotes()

    def formatted(cell: TableCell) -> str:
        text = escaping.latex(cell.text)
        return (rf"\textbf{{{text}}}" if cell.best else text) + escaping.latex(marks.get(cell.note, ""))

    lines = [escaping.latex_line(formatted(cell) for cell in line) for line in table.body]
    notes = [
        rf"\\ \footnotesize {escaping.latex(mark)} {escaping.latex(note)}" for note, mark in marks.items()
    ]
    columns = "".join("l" if left else "r" for left in table.left())
    text = "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaping.latex(f'{table.title}. {table.caption}')}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            escaping.latex_line(map(escaping.latex, table.header)),
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


def _markdown_cell(text: str) -> str:
    return escaping.markdown(text).replace("|", "\\|")


def to_csv(numbers: pd.DataFrame) -> str:
    """Returns numbers as csv, with eight significant digits."""
    words = [name for name in numbers if not pd.api.types.is_numeric_dtype(numbers[name])]
    safe = {name: numbers[name].map(_csv_cell, na_action="ignore") for name in words}
    frame = numbers.assign(**safe).rename(columns=_csv_cell)
    return frame.to_csv(index=False, float_format="%.8g", lineterminator="\n")


def _csv_cell(value: Any) -> Any:
    return escaping.csv(value) if isinstance(value, str) else value
