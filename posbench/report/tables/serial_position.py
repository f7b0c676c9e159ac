"""Primacy and recency: accuracy at the ends of a context in comparison with its middle.

The serial-position curve of free recall: Murdock. The Serial Position Effect of Free Recall. Journal of
Experimental Psychology 64(5), 1962. Of language models: Liu et al. Lost in the Middle. TACL 2024. arXiv:2307.03172.
The papers show the curve; the two indices are ours. With acc(x, y) the accuracy over records of depths x to y (0 the
first record of the context, 1 the last):

    primacy = acc(0, 1/10) - acc(1/3, 2/3)        recency = acc(9/10, 1) - acc(1/3, 2/3)

If both are positive, records are lost in the middle. The middle is a third, so that short contexts have records in
it. `worst_depth` is the centre of the fifth of the depths with the lowest accuracy, if it is a single one.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from posbench.errors import DataError
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_cell, format_interval, format_number, multiple_of
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import METRICS, Metric
from posbench.report.tables.selection import (
    SERIES_COLUMNS,
    conclusive,
    ordered_series,
    propagate_gate,
    series_label,
)
from posbench.report.tables.summary import (
    CLUSTER,
    NO_INTERVAL,
    aggregate,
    baseline_values,
    metric_sums,
    paired_intervals,
)

# Depths of the first and last tenth and of the middle third.
PARTS = {"first": (0.0, 0.1), "middle": (1 / 3, 2 / 3), "last": (0.9, 1.0)}
_TOLERANCE = 1e-9  # for rounded depths such as 1/3
_FIFTHS = 5
_SIDES = ["numerator", "denominator"]


def primacy_recency(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Returns a line per series and length: accuracy overall and of the three parts, primacy and recency.

    Intervals of the indices are those of `paired_intervals`, over contexts with all their records. Rows without a depth are dropped.

    Raises:
        DataError: the metric is not a fraction but an exponential.
    """
    if metric.exponential:
        raise DataError(f"{metric.name} has no serial position: choose a metric that is a fraction")
    rows = propagate_gate(rows[rows["depth"].notna() | rows["value_sum"].isna()])
    numbers = aggregate(rows, metric)
    of_metric = rows[rows["metric"].isin(metric.row_metrics) & conclusive(rows)]
    point = ["eval_len", *SERIES_COLUMNS]
    fifth = np.floor(of_metric["depth"].to_numpy(dtype=float) * _FIFTHS).clip(max=_FIFTHS - 1)
    fifths = metric_sums(of_metric.assign(fifth=fifth), metric, [*point, "fifth"])
    parts = {
        name: metric_sums(between(of_metric, *ends), metric, [*point, "train_seed", *CLUSTER])
        for name, ends in PARTS.items()
    }
    ratios = {name: _ratios(sums.groupby(point)[_SIDES].sum()).to_dict() for name, sums in parts.items()}
    indices = {
        index: paired_intervals(_paired(parts[end], parts["middle"]), point)
        for index, end in (("primacy", "first"), ("recency", "last"))
    }
    lines = []
    for one in numbers.itertuples():
        key = (one.eval_len, one.scheme, one.extension)
        line = {name: ratios[name].get(key, math.nan) for name in PARTS}
        for index, intervals in indices.items():
            interval = intervals.get(key, NO_INTERVAL)
            line |= {
                index: interval.estimate,
                f"{index}_low": max(interval.low, -1.0) if interval.method else math.nan,
                f"{index}_high": min(interval.high, 1.0) if interval.method else math.nan,
            }
        lines.append(line | _worst_fifth(fifths, key))
    return pd.concat([numbers, pd.DataFrame(lines)], axis=1)


def between(rows: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    return rows[rows["depth"].between(low - _TOLERANCE, high + _TOLERANCE)]


def _ratios(sums: pd.DataFrame) -> pd.Series:
    return sums["numerator"] / sums["denominator"]


def _paired(end: pd.DataFrame, middle: pd.DataFrame) -> pd.DataFrame:
    """Returns the sums of both parts by context; a context may have records in only one of them."""
    return end[_SIDES].add_suffix("_a").join(middle[_SIDES].add_suffix("_b"), how="outer").fillna(0.0)


def _worst_fifth(fifths: pd.DataFrame, key: tuple) -> dict[str, float]:
    if key not in fifths.index:
        return {"worst_depth": math.nan, "worst_fifth": math.nan}
    ratios = _ratios(fifths.loc[key])
    lowest = ratios.index[ratios == ratios.min()]
    depth = (float(lowest[0]) + 0.5) / _FIFTHS if len(lowest) == 1 else math.nan
    return {"worst_depth": depth, "worst_fifth": float(ratios.min())}


def serial_position(rows: pd.DataFrame, metric: Metric, order: Sequence[str], name: str) -> Table | None:
    """Returns a table per length with numbers: accuracy overall and of the parts, primacy and recency; None without any."""
    numbers = primacy_recency(rows, metric)
    baselines = baseline_values(rows, metric.baselines)
    tables = [
        _at_length(rows, numbers, metric, order, baselines, name, length)
        for length in sorted(numbers.loc[numbers["estimate"].notna(), "eval_len"].unique())
    ]
    if not tables:
        return None
    first, *others = tables
    shown = numbers.merge(baselines.reset_index(), on="eval_len", how="left")
    return replace(first, name=name, numbers=shown, more=others)


def _at_length(
    rows: pd.DataFrame,
    numbers: pd.DataFrame,
    metric: Metric,
    order: Sequence[str],
    baselines: pd.DataFrame,
    name: str,
    length: int,
) -> Table:
    shown = numbers[numbers["eval_len"] == length]
    lines = {(line.scheme, line.extension): line for line in shown.itertuples()}
    body = []
    for series in ordered_series(shown, order):
        line = lines[series]
        parts = [format_number(getattr(line, part)) for part in PARTS]
        both = [
            f"{format_number(getattr(line, index))} {format_interval(getattr(line, index + '_low'), getattr(line, index + '_high'))}"
            for index in ("primacy", "recency")
        ]
        low = (
            ""
            if math.isnan(line.worst_depth)
            else f"{line.worst_depth:.1f} ({format_number(line.worst_fifth)})"
        )
        body.append(
            [
                TableCell(series_label(*series)),
                format_cell(line),
                *(TableCell(text.strip()) for text in (*parts, *both, low)),
            ]
        )
    header = [metric.label, *(f"{part} {'third' if part == 'middle' else 'tenth'}" for part in PARTS)]
    header = ["scheme", *header, "primacy", "recency", "lowest at"]
    for baseline, column in baselines.items():
        value = format_number(column.get(length, math.nan))
        body.append(
            [
                TableCell(f"({METRICS[str(baseline)].label})"),
                TableCell(value),
                *(TableCell("") for _ in header[2:]),
            ]
        )
    note = (
        "Primacy: accuracy on the first tenth of the records minus the middle third; recency: the last tenth minus the "
        "middle third; intervals of both above 0: lost in the middle. Lowest at: the depth (0 first record, 1 last) of the fifth with "
        "the lowest accuracy, and its accuracy, blank if several have it; which fifth is lowest is random if all are similar."
    )
    train_len = int(rows["train_len"].iat[0])
    return Table(
        name=f"{name}-{length}",
        title=f"Primacy and recency at {length} tokens ({multiple_of(length, train_len)})",
        caption=caption([(rows, shown, metric)], note, intervals="intervals", notes=False),
        header=header,
        body=body,
        numbers=shown,
    )
