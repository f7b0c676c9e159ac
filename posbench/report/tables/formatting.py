"""Formatting of numbers with intervals, of missing numbers, and of lengths."""

from typing import Any

import pandas as pd

from posbench.report.tables.caption_text import left_out, some_not_learned, status_note
from posbench.report.tables.markup import TableCell

SMALLEST = 1e-12  # smaller numbers are rounding errors of 0


def format_cell(line: Any, best: str | None = None) -> TableCell:
    """Returns the cell of one line of a summary: its number with the interval, or the reason why there is none.

    Args:
        line: a row of a summary, or None for an empty cell.
        best: the formatted number that is printed in bold, unless it has a footnote.
    """
    if line is None:
        return TableCell("")
    if pd.isna(line.estimate):
        return TableCell(
            "not learned" if line.status == "not_learned" else "–", note=f"{status_note(line.status)}."
        )
    note = "" if line.status == "ok" else f"{status_note(line.status)}."
    if line.seeds_left_out:
        note = left_out(line.seeds_left_out, line.seeds + line.seeds_left_out, line.status)
    elif 0 < line.seeds_not_learned < line.seeds:
        note = some_not_learned(line.seeds_not_learned, line.seeds)
    text = format_number(line.estimate)
    return TableCell(
        f"{text} {format_interval(line.low, line.high)}".strip(), not note and text == best, note
    )


def format_number(value: float) -> str:
    """Returns a number with two decimals, or two digits below 0.01; whole from 1000 on, a power from a million on."""
    if pd.isna(value):
        return ""
    size = abs(value)
    if size < SMALLEST:
        return "0.00"
    if size < 0.01:
        return f"{value:#.2g}"
    return f"{value:.2f}" if size < 1000 else f"{value:,.0f}" if size < 1e6 else f"{value:.2e}"


def format_interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"[{format_number(low)}, {format_number(high)}]"


def multiple_of(length: float, train_len: int) -> str:
    """Returns a length as a multiple of the training length, in three digits or all whole ones, such as 2.96×."""
    ratio = length / train_len
    return f"{ratio:.3g}×" if ratio < 100 else f"{ratio:.0f}×"
