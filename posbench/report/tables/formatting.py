"""Formatting of numbers with intervals, of missing numbers, and of lengths."""

from typing import Any

import pandas as pd

from posbench.report.tables.caption_text import STATUS_NOTES, left_out
from posbench.report.tables.markup import TableCell


def format_cell(line: Any, best: str | None = None) -> TableCell:
    """Returns the cell of one line of a summary: its number with the interval, or the reason why there is none.

    Args:
        line: a row of a summary, or None for an empty cell.
        best: the formatted number that is printed in bold.
    """
    if line is None:
        return TableCell("")
    note = "" if line.status == "ok" else f"{STATUS_NOTES[line.status]}."
    if pd.isna(line.estimate):
        return TableCell("not learned" if line.status == "not_learned" else "–", note=note)
    if line.seeds_left_out:
        note = left_out(line.seeds_left_out, line.seeds + line.seeds_left_out, line.status)
    text = format_number(line.estimate)
    return TableCell(
        f"{text} {format_interval(line.low, line.high)}".strip(), line.status == "ok" and text == best, note
    )


def format_number(value: float) -> str:
    if pd.isna(value):
        return ""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def format_interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"[{format_number(low)}, {format_number(high)}]"


def multiple_of(length: float, train_len: int) -> str:
    """Returns a length as a multiple of the training length, in three digits or all whole ones, such as 2.96×."""
    ratio = length / train_len
    return f"{ratio:.3g}×" if ratio < 100 else f"{ratio:.0f}×"
