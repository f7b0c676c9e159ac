"""Gain of context: the loss at the training length minus the loss at longer ones, of the same targets.

Computed from the protocol of fixed targets, whose targets are the same at every length. The gain is positive if
more context helps and negative if it hurts. Losses are paired by document, whose difficulty is the same at both lengths.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_cell, multiple_of
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import Metric, nats_per_token
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
    metric_sums,
    paired_intervals,
)

NOTE = (
    "Gain: the loss at the training length minus the loss at this length, paired by document; above 0 more context "
    "helps, below 0 it hurts."
)


def context_gain_metric(metric: Metric) -> Metric:
    """Returns the metric of the gain of a loss; that of a perplexity is the gain of its logarithm."""
    loss = nats_per_token(metric) if metric.exponential else metric
    return replace(
        loss,
        name="context_gain",
        label=f"gain of context ({loss.label})",
        lower_is_better=False,
        least=-math.inf,
    )


def context_gains(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Returns a summary, a line per series and length from the training length on, with the gain over it as estimate.

    Intervals and seeds are those of the paired difference (`paired_intervals`). The gain is NaN if one of the lengths has
    no number.
    """
    rows = rows[rows["eval_len"] >= rows["train_len"]]
    numbers = aggregate(rows, metric)
    targets = [*SERIES_COLUMNS, "train_seed", *CLUSTER]
    rows = propagate_gate(rows)
    sums = metric_sums(rows, metric, ["eval_len", *targets], conclusive(rows))
    sums = sums[["numerator", "denominator"]]
    at_home = sums.index.get_level_values("eval_len") == int(rows["train_len"].iat[0])
    home = sums[at_home].droplevel("eval_len").add_suffix("_a")
    pairs = home.join(sums.add_suffix("_b").reset_index("eval_len"), how="inner")
    pairs = pairs.set_index("eval_len", append=True)
    gains = paired_intervals(pairs, [*SERIES_COLUMNS, "eval_len"])
    intervals = [
        gains.get((line.scheme, line.extension, line.eval_len), NO_INTERVAL) for line in numbers.itertuples()
    ]
    columns = {name: [getattr(one, name) for one in intervals] for name in ("estimate", "low", "high")}
    seeds = [one.seeds for one in intervals]
    return numbers.assign(
        **columns,
        interval_method=[one.method for one in intervals],
        seeds=seeds,
        seeds_left_out=numbers["seeds"] + numbers["seeds_left_out"] - seeds,
        n=numbers["n"] // numbers["seeds"].clip(lower=1) * seeds,
    )


def context_gain_table(rows: pd.DataFrame, metric: Metric, order: Sequence[str], name: str) -> Table | None:
    """Returns the table of gains, a row per series and a column per length; None without a length beyond the training length."""
    train_len = int(rows["train_len"].iat[0])
    lengths = sorted(length for length in rows["eval_len"].unique() if length > train_len)
    if not lengths or train_len not in set(rows["eval_len"]):
        return None
    numbers = context_gains(rows, metric)
    gain = context_gain_metric(metric)
    shown = numbers[numbers["eval_len"] != train_len]  # the gain of the training length over itself is 0
    lines = {(line.scheme, line.extension, line.eval_len): line for line in numbers.itertuples()}
    return Table(
        name=name,
        title="Gain of context over the training length, by context length in tokens",
        caption=caption([(rows, shown, gain)], NOTE, intervals="intervals", notes=False),
        header=["scheme", *(f"{length} ({multiple_of(length, train_len)})" for length in lengths)],
        body=[
            [
                TableCell(series_label(*series)),
                *(format_cell(lines.get((*series, length))) for length in lengths),
            ]
            for series in ordered_series(numbers, order)
        ],
        numbers=numbers.assign(metric=gain.name, train_len=train_len),
    )
