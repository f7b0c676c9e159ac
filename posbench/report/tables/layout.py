"""Tables of an experiment: its models, and several tables for each protocol and metric."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from posbench import escaping
from posbench.report.tables.caption_text import capital
from posbench.report.tables.captions import caption, captions_with
from posbench.report.tables.context_gain import context_gain_table
from posbench.report.tables.effective_length import effective_length_table
from posbench.report.tables.formatting import format_cell, format_number, multiple_of
from posbench.report.tables.identities import report_rows
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import METRICS, Metric, metrics_for_task
from posbench.report.tables.models_table import models_table
from posbench.report.tables.pairwise_table import pairwise_table
from posbench.report.tables.pairwise_tests import pairwise_tests
from posbench.report.tables.ranking import ranking_table
from posbench.report.tables.selection import (
    SETTING_COLUMNS,
    expand_prefix_lengths,
    one_kernel,
    ordered_series,
    rows_of_metric,
    series_label,
)
from posbench.report.tables.serial_position import serial_position
from posbench.report.tables.summary import aggregate, baseline_values
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY

PROTOCOL = ["task", "protocol", "variant"]
BEST_IN_BOLD = "Best of the series without a footnote in bold."
COMPARED = (
    "bits_per_byte",
    "exact_match",
    "substring_match",
    "recall",
    "token_accuracy",
)  # have pairwise tests


def build_tables(
    rows: pd.DataFrame, order: Sequence[str] = (), mix_kernels: bool = False, note: str = ""
) -> list[Table]:
    """Returns all tables of the rows; a table has rows of one setting, one protocol and one kernel.

    Args:
        order: schemes in the order of table rows.
        mix_kernels: allow several attention kernels in a table.
        note: sentences at the end of all captions, about the experiment.

    Raises:
        IncompatibleError: a table would mix kernels.
        DataError: a table would average different models or evaluations.
    """
    with captions_with(note):
        return list(_tables(report_rows(rows), order, mix_kernels))


def _tables(rows: pd.DataFrame, order: Sequence[str], mix_kernels: bool) -> Iterator[Table]:
    for setting_name, setting in _groups(rows, SETTING_COLUMNS):
        protocols = list(_groups(setting, PROTOCOL, always=("task", "protocol")))
        about = {name: setting[name].iat[0] for name in SETTING_COLUMNS}
        models = models_table(setting, protocols, order, _joined("models", setting_name))
        yield replace(models, about={**about, "kind": "models"})
        for protocol_name, part in protocols:
            if not mix_kernels:
                one_kernel(part)
            by_length = expand_prefix_lengths(part)
            for metric in metrics_for_task(by_length["task"].iat[0], by_length["metric"].unique()):
                name = _joined(protocol_name, metric.name, setting_name)
                of_part = {**about, **{key: part[key].iat[0] for key in PROTOCOL}, "metric": metric.name}
                for table in _of_metric(by_length, metric, order, name):
                    kind = table.name.removeprefix(name).removeprefix("-") or "values"
                    yield replace(table, about={**of_part, "kind": kind})


def _of_metric(rows: pd.DataFrame, metric: Metric, order: Sequence[str], name: str) -> Iterator[Table]:
    rows = rows_of_metric(rows, metric)
    table = _by_length(rows, metric, order, name)
    yield table
    if metric.name in COMPARED:
        tests = pairwise_tests(rows, metric, order)
        differences = pairwise_table(rows, table.numbers, tests, metric, f"{name}-differences")
        ranks = ranking_table(rows, table.numbers, tests, metric, f"{name}-ranking")
        yield from (one for one in (differences, ranks) if one is not None)
    same_targets = metric.name == "bits_per_byte" and rows["protocol"].iat[0] == "fixed_targets"
    if same_targets:
        gains = context_gain_table(rows, metric, order, f"{name}-context_gain")
        if gains is not None:
            yield gains
    # A score of length generalization is that of a range of lengths, between which nothing is to be interpolated.
    ranges = rows["task"].iat[0] == "length_generalization"
    if same_targets or (metric.name in GATE_METRICS and not ranges):
        lengths = effective_length_table(rows, metric, order, f"{name}-effective_length")
        if lengths is not None:
            yield lengths
    if metric.name in GATE_METRICS and rows.loc[rows["metric"] == metric.row_metric, "depth"].nunique() > 1:
        position = serial_position(rows, metric, order, f"{name}-serial_position")
        if position is not None:
            yield position


def _by_length(rows: pd.DataFrame, metric: Metric, order: Sequence[str], name: str) -> Table:
    """A row per series and a column per length; below accuracies, baselines and the gate."""
    numbers = aggregate(rows, metric)
    lengths = sorted(numbers["eval_len"].unique())
    train_len = int(rows["train_len"].iat[0])
    complete = (numbers["status"] == "ok") & (numbers["seeds_left_out"] == 0)
    good = numbers[complete].groupby("eval_len")["estimate"]
    best, bold = {}, []
    series = ordered_series(numbers, order)
    if metric.lower_is_better is not None and len(series) > 1:
        bold = [BEST_IN_BOLD]
        ends = good.agg(["min", "max"])
        differ = ends["min"] < ends["max"]  # of equal ones, none is the best
        best = ends.loc[differ, "min" if metric.lower_is_better else "max"].map(format_number).to_dict()
    lines = {(line.scheme, line.extension, line.eval_len): line for line in numbers.itertuples()}
    body = [
        [
            TableCell(series_label(*one)),
            *(format_cell(lines.get((*one, length)), best.get(length)) for length in lengths),
        ]
        for one in series
    ]
    for baseline, column in baseline_values(rows, metric.baselines).items():
        values = column.reindex(lengths)
        body.append(
            [
                TableCell(f"({METRICS[str(baseline)].label})"),
                *(TableCell(format_number(value)) for value in values),
            ]
        )
    if metric.name in GATE_METRICS and train_len in lengths:
        gates = [format_number(MIN_ACCURACY) if length == train_len else "" for length in lengths]
        body.append([TableCell("(gate)"), *(TableCell(value) for value in gates)])
    return Table(
        name=name,
        title=f"{capital(metric.label)} by context length in tokens",
        caption=caption([(rows, numbers, metric)], *bold, intervals="intervals", notes=False),
        header=["scheme", *(f"{length} ({multiple_of(length, train_len)})" for length in lengths)],
        body=body,
        numbers=numbers.assign(metric=metric.name, train_len=train_len),
    )


def _groups(
    rows: pd.DataFrame, columns: Sequence[str], always: Sequence[str] = ()
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields the groups of rows by some columns, named by the values of columns that differ.

    Args:
        always: columns that are part of the name even if they do not differ.
    """
    several = [column for column in columns if rows[column].nunique() > 1]
    named = [column for column in columns if column in always or column in several]
    for _, part in rows.groupby(several) if several else [((), rows)]:
        values = [str(part[column].iat[0]) for column in named]
        yield _joined(*(value for value in values if value != "none")), part


def _joined(*words: str) -> str:
    """Returns the name of a table, which becomes a file."""
    name = "-".join(word for word in words if word)
    return escaping.file_name(name) if name else ""
