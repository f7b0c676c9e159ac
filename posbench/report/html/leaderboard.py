"""Leaderboard: for each series of each experiment its loss and retrieval by length, effective lengths and price.

All numbers are those of the experiment's tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from posbench.report.html.results import Describe, ExperimentResults
from posbench.report.tables.caption_text import TUNING, is_tuned
from posbench.report.tables.effective_length import LOSS, SHARES, length_cell
from posbench.report.tables.formatting import format_cell
from posbench.report.tables.markup import Table
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.ranking import not_told_apart
from posbench.report.tables.selection import SERIES_COLUMNS, SETTING_COLUMNS, ordered_series, series_label
from posbench.results.gate import GATE_METRICS

MULTIPLES = (1, 2, 4, 8, 16)
# In the order of preference.
LOSS_PROTOCOLS = ("fixed_targets", "non_overlapping", "sliding", "prefix")
RETRIEVAL_TASKS = ("key_value", "passkey", "multi_document", "mqar", "multi_value", "multi_query")
RETRIEVAL_METRICS = (*GATE_METRICS, "recall")
PRICE = ("parameters", "tokens", "time")
COMPARED_AT = 8  # multiple of the training length at which losses are summarised, if it was measured


@dataclass(frozen=True)
class Entry:
    """Text of a cell, the number that it is sorted by, and its footnote."""

    text: str
    value: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A series of an experiment; `entries` by column."""

    experiment: ExperimentResults
    setting: str
    scheme: str
    extension: str
    kind: str
    entries: Mapping[str, Entry]
    command: str

    @property
    def label(self) -> str:
        return series_label(self.scheme, self.extension)


@dataclass(frozen=True)
class Best:
    """The best series of an experiment in one measure.

    Attributes:
        equals: series from which it does not differ significantly, by the correction of the table of ranks.
    """

    measure: str
    line: Line
    entry: Entry
    equals: Sequence[str] = ()


@dataclass(frozen=True)
class Board:
    """The lines of one setting of an experiment, and the best of them."""

    experiment: ExperimentResults
    setting: str
    lines: Sequence[Line]
    best: Sequence[Best] = field(default=())


def boards(experiment: ExperimentResults, costs: Mapping[str, Entry], describe: Describe) -> Iterator[Board]:
    """Yields a board for each setting that has a loss or a retrieval accuracy.

    Args:
        costs: time of a forward pass by scheme.
    """
    settings: dict[tuple[Any, ...], list[Table]] = {}
    for table in experiment.tables:
        settings.setdefault(tuple(table.about[name] for name in SETTING_COLUMNS), []).append(table)
    differing = [place for place in range(len(SETTING_COLUMNS)) if len({key[place] for key in settings}) > 1]
    for key, tables in settings.items():
        loss, retrieval = loss_table(tables), retrieval_table(tables)
        found = [table for table in (loss, retrieval) if table is not None]
        if not found:
            continue
        name = ", ".join(f"{SETTING_COLUMNS[place].replace('_', ' ')} {key[place]}" for place in differing)
        columns = _columns(tables, loss, retrieval, experiment.note)
        numbers = pd.concat([table.numbers[SERIES_COLUMNS] for table in found])
        lines = []
        for scheme, extension in ordered_series(numbers, experiment.order):
            entries = {
                column: cells[scheme, extension]
                for column, cells in columns.items()
                if (scheme, extension) in cells
            }
            if scheme in costs and extension == "none":  # the time is that of the plain scheme
                entries["time"] = costs[scheme]
            lines.append(
                Line(
                    experiment,
                    name,
                    scheme,
                    extension,
                    _kind(extension, describe),
                    entries,
                    experiment.series_command(scheme, extension, describe),
                )
            )
        best = [
            *_best_of(lines, loss, tables, "loss", "Lowest loss"),
            *_best_of(lines, retrieval, tables, "retrieval", "Best retrieval"),
        ]
        yield Board(experiment, name, lines, best)


def loss_table(tables: Sequence[Table]) -> Table | None:
    """Returns the table of bits per byte, of fixed targets if the rows have them."""
    found = {
        table.about["protocol"]: table
        for table in tables
        if table.about["kind"] == "values" and table.about["metric"] == "bits_per_byte"
    }
    return next((found[name] for name in LOSS_PROTOCOLS if name in found), None)


def retrieval_table(tables: Sequence[Table]) -> Table | None:
    """Returns the table of retrieval accuracy, of key-value retrieval with the plain prompt if the rows have it."""
    found: dict[str, Table] = {}
    for table in sorted(tables, key=lambda table: str(table.about.get("variant", ""))):
        if table.about["kind"] == "values" and table.about["metric"] in RETRIEVAL_METRICS:
            found.setdefault(table.about["task"], table)
    return next((found[name] for name in RETRIEVAL_TASKS if name in found), None)


def title(column: str) -> str:
    """Returns the header of a column of the leaderboard."""
    name, _, multiple = column.partition(" ")
    return {
        "loss": f"Loss at {multiple}",
        "retrieval": f"Retrieval at {multiple}",
        "effective_loss": "Effective length by loss",
        "effective_retrieval": "Effective length by retrieval",
        "parameters": "Parameters",
        "tokens": "Training tokens",
        "time": "Time of a forward pass",
    }[name]


def columns_of(found: Sequence[Board]) -> list[str]:
    """Returns the columns that have an entry, in order."""
    lengths = [f"{measure} {multiple}×" for measure in ("loss", "retrieval") for multiple in MULTIPLES]
    every = [*lengths, "effective_loss", "effective_retrieval", *PRICE]
    used = {column for board in found for line in board.lines for column in line.entries}
    return [column for column in every if column in used]


def ranked_by(columns: Sequence[str]) -> int:
    """Returns the place of the column that the leaderboard is sorted by at first, -1 for none."""
    order = [f"loss {COMPARED_AT}×", *(name for name in reversed(columns) if name.startswith("loss "))]
    return next((columns.index(name) for name in order if name in columns), -1)


def _kind(extension: str, describe: Describe) -> str:
    if extension == "none":
        return "scheme"
    return "ensemble" if describe("ensemble", extension) else "extension"


Cells = dict[tuple[str, str], Entry]


def _columns(
    tables: Sequence[Table], loss: Table | None, retrieval: Table | None, note: str
) -> dict[str, Cells]:
    columns: dict[str, Cells] = {}
    for measure, table in (("loss", loss), ("retrieval", retrieval)):
        if table is None:
            continue
        train_len = int(table.about["train_len"])
        for line in table.numbers.itertuples():
            if line.eval_len in {multiple * train_len for multiple in MULTIPLES}:
                cell = format_cell(line)
                column = columns.setdefault(f"{measure} {line.eval_len // train_len}×", {})
                column[line.scheme, line.extension] = Entry(cell.text, float(line.estimate), cell.note)
        threshold = (LOSS if measure == "loss" else SHARES)[0].label
        lengths = _beside(tables, table, "effective_length")
        if lengths is not None:
            rows = lengths.numbers[lengths.numbers["threshold"] == threshold]
            column = columns.setdefault(f"effective_{measure}", {})
            for line in rows.itertuples():
                cell = length_cell(line)
                column[line.scheme, line.extension] = Entry(cell.text, float(line.estimate), cell.note)
    models = next(table for table in tables if table.about["kind"] == "models").numbers
    series = {key for column in columns.values() for key in column}
    for name, counted in (("parameters", "n_params"), ("tokens", "train_tokens")):
        counts = dict(zip(models["scheme"], models[counted], strict=True))
        columns[name] = {
            key: Entry(
                f"{counts[key[0]]:,}" + (TUNING if name == "tokens" and is_tuned(note, key[1]) else ""),
                float(counts[key[0]]),
            )
            for key in series
            if counts.get(key[0])
        }
    return columns


def _beside(tables: Sequence[Table], values: Table, kind: str) -> Table | None:
    """Returns the table of another kind of the same numbers."""
    about = {**values.about, "kind": kind}
    return next((table for table in tables if dict(table.about) == about), None)


def _best_of(
    lines: Sequence[Line], table: Table | None, tables: Sequence[Table], measure: str, words: str
) -> Iterator[Best]:
    """Yields the best series at the longest length, or at COMPARED_AT times the training length for a loss."""
    if table is None:
        return
    metric = get_metric(table.about["metric"], table.about["task"])
    train_len = int(table.about["train_len"])
    by_column = {f"{measure} {multiple}×": multiple for multiple in MULTIPLES}
    with_value = {
        multiple: [line for line in lines if math.isfinite(_value(line, column))]
        for column, multiple in by_column.items()
    }
    measured = {
        multiple: [line for line in found if not line.entries[f"{measure} {multiple}×"].note]
        for multiple, found in with_value.items()
    }
    lengths = [multiple for multiple, found in measured.items() if found]
    if not lengths:
        return
    at = COMPARED_AT if measure == "loss" and COMPARED_AT in lengths else max(lengths)
    column = f"{measure} {at}×"
    sign = 1 if metric.lower_is_better else -1
    best = min(measured[at], key=lambda line: sign * _value(line, column))
    differences = _beside(tables, table, "differences")
    equals = [] if differences is None else not_told_apart(differences.numbers, best.label, at * train_len)
    what = f"{words} at {at}× the training length ({at * train_len:,} tokens), {metric.label}"
    if len(measured[at]) < len(with_value[at]):
        what += ", of the series that have a value with every seed"
    yield Best(what, best, best.entries[column], equals)


def _value(line: Line, column: str) -> float:
    return line.entries[column].value if column in line.entries else math.nan
