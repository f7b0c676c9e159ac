"""Primacy and recency: how much better the ends of a context are found again than its middle.

The serial-position curve of free recall: Murdock. The Serial Position Effect of Free Recall. Journal of
Experimental Psychology 64(5), 1962. Of language models: Liu et al. Lost in the Middle. TACL 2024. arXiv:2307.03172.
There the curve is drawn; the two indices below are ours. With acc(x, y) the accuracy over the records whose depth
is from x to y (0 the first record of the context, 1 the last):

    primacy = acc(0, 1/10) - acc(1/3, 2/3)        recency = acc(9/10, 1) - acc(1/3, 2/3)

Both above zero: lost in the middle. The middle is a third, so that few places have one. `worst_depth` is the middle
of the fifth of the depths that is found worst.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from posbench.errors import DataError
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_cell, format_interval, format_number
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import METRICS, Metric
from posbench.report.tables.selection import (
    SERIES_COLUMNS,
    conclusive,
    ordered_series,
    propagate_gate,
    series_label,
)
from posbench.report.tables.summary import CLUSTER, aggregate, baseline_values, metric_sums
from posbench.results.statistics import Interval, paired_cluster_bootstrap, t_interval

# Depth of the first and last tenth and of the middle third; the slack is for places such as 1/3.
PARTS = {"first": (0.0, 0.1), "middle": (1 / 3, 2 / 3), "last": (0.9, 1.0)}
_SLACK = 1e-9
_FIFTHS = 5
_NOTHING = Interval(math.nan, math.nan, math.nan, "")


def primacy_recency(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """A line per series and length: accuracy of the whole, of the three parts, primacy and recency.

    Intervals of the indices are a bootstrap that draws contexts with all their records, or Student's t over
    several seeds. Rows without a depth are left out.
    """
    if metric.exponential:
        raise DataError(f"{metric.name} has no serial position: its differences are no differences of shares")
    rows = propagate_gate(rows[rows["depth"].notna() | rows["value_sum"].isna()])
    numbers = aggregate(rows, metric)
    held = conclusive(rows)
    by = ["eval_len", *SERIES_COLUMNS, "train_seed", *CLUSTER]
    fifth = np.floor(held["depth"].to_numpy(dtype=float) * _FIFTHS).clip(max=_FIFTHS - 1)
    fifths = metric_sums(held.assign(fifth=fifth), metric, ["eval_len", *SERIES_COLUMNS, "fifth"])
    parts = {
        name: metric_sums(_between(held, *ends), metric, by)[["numerator", "denominator"]]
        for name, ends in PARTS.items()
    }
    lines = [
        _of(parts, (line.eval_len, line.scheme, line.extension))
        | _worst_fifth(fifths, (line.eval_len, line.scheme, line.extension))
        for line in numbers.itertuples()
    ]
    return pd.concat([numbers, pd.DataFrame(lines)], axis=1)


def _between(rows: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    return rows[rows["depth"].between(low - _SLACK, high + _SLACK)]


def _of(parts: dict[str, pd.DataFrame], key: tuple) -> dict[str, float]:
    here = {name: sums.loc[key] for name, sums in parts.items() if key in sums.index}
    line = {name: _ratio(here.get(name)) for name in PARTS}
    for index, end in (("primacy", "first"), ("recency", "last")):
        found = _contrast(here[end], here["middle"]) if {end, "middle"} <= set(here) else _NOTHING
        line |= {index: found.estimate, f"{index}_low": found.low, f"{index}_high": found.high}
    return line


def _ratio(sums: pd.DataFrame | None) -> float:
    return math.nan if sums is None else float(sums["numerator"].sum() / sums["denominator"].sum())


def _contrast(end: pd.DataFrame, middle: pd.DataFrame) -> Interval:
    """The end's ratio minus the middle's; a context may hold a record of one of them alone."""
    both = end.add_suffix("_end").join(middle.add_suffix("_middle"), how="outer").fillna(0.0)
    by_seed = both.groupby("train_seed").sum()
    # A seed that was asked at one place only has no difference.
    by_seed = by_seed[(by_seed[["denominator_end", "denominator_middle"]] > 0).all(axis=1)]
    if len(by_seed) == 0:
        return _NOTHING
    if len(by_seed) > 1:
        ends = by_seed["numerator_end"] / by_seed["denominator_end"]
        return t_interval(ends - by_seed["numerator_middle"] / by_seed["denominator_middle"])
    both = both.loc[by_seed.index]
    return paired_cluster_bootstrap(
        (both["numerator_end"], both["denominator_end"]),
        (both["numerator_middle"], both["denominator_middle"]),
    )


def _worst_fifth(fifths: pd.DataFrame, key: tuple) -> dict[str, float]:
    if key not in fifths.index:
        return {"worst_depth": math.nan, "worst_fifth": math.nan}
    found = fifths.loc[key]
    ratios = found["numerator"] / found["denominator"]
    return {"worst_depth": (float(ratios.idxmin()) + 0.5) / _FIFTHS, "worst_fifth": float(ratios.min())}


def serial_position(rows: pd.DataFrame, metric: Metric, order: Sequence[str], name: str) -> Table:
    """A table a length: accuracy beside its parts, primacy and recency."""
    numbers = primacy_recency(rows, metric)
    baselines = baseline_values(rows, metric.baselines)
    tables = [
        _at_length(rows, numbers, metric, order, baselines, name, length)
        for length in sorted(numbers["eval_len"].unique())
    ]
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
            if math.isnan(line.worst_fifth)
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
        "Primacy: the first tenth of the places minus the middle third; recency: the last tenth minus the middle "
        "third; both above 0 is lost in the middle. Lowest at: the depth, 0 the first place and 1 the last, of the "
        "worst fifth, and its value; where all fifths are alike, it is chance which is worst."
    )
    train_len = int(rows["train_len"].iat[0])
    return Table(
        name=f"{name}-{length}",
        title=f"Primacy and recency at {length} tokens ({length / train_len:g}×)",
        caption=caption([(rows, shown, metric)], note, intervals="intervals", notes=False),
        header=header,
        body=body,
        numbers=shown,
    )
