"""What more context gives: the loss of the same targets at the training length minus their loss at others.

Of the protocol of fixed targets, whose targets do not change with the length. Positive where context helps, negative
where it harms. Paired by document, since what makes a document hard is the same at both lengths.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_cell
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import Metric
from posbench.report.tables.selection import SERIES_COLUMNS, ordered_series, propagate_gate, series_label
from posbench.report.tables.summary import (
    CLUSTER,
    NO_INTERVAL,
    aggregate,
    conclusive_sums,
    paired_intervals,
)

NOTE = (
    "The gain is the loss at the training length minus the loss at this length, of the same tokens, paired by document: "
    "above 0 context helps, below 0 it harms."
)


def context_gain_metric(metric: Metric) -> Metric:
    """How a gain is called and read."""
    return replace(
        metric, name="context_gain", label=f"gain of context ({metric.label})", lower_is_better=False
    )


def context_gains(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """A summary, a line per series and length, whose estimate is the gain over the training length.

    Intervals are of the paired difference: a bootstrap over documents, or Student's t over several seeds. A
    length is without a number where either has none.
    """
    numbers = aggregate(rows, metric)
    targets = [*SERIES_COLUMNS, "train_seed", *CLUSTER]
    sums = conclusive_sums(propagate_gate(rows), metric, ["eval_len", *targets])
    sums = sums[["numerator", "denominator"]].reset_index("eval_len")
    home = sums[sums["eval_len"] == int(rows["train_len"].iat[0])].drop(columns="eval_len")
    pairs = home.join(sums, how="inner", lsuffix="_a", rsuffix="_b").set_index("eval_len", append=True)
    gains = paired_intervals(pairs, [*SERIES_COLUMNS, "eval_len"])
    found = [
        gains.get((line.scheme, line.extension, line.eval_len), NO_INTERVAL) for line in numbers.itertuples()
    ]
    columns = {name: [getattr(one, name) for one in found] for name in ("estimate", "low", "high")}
    return numbers.assign(**columns, interval_method=[one.method for one in found])


def context_gain_table(rows: pd.DataFrame, metric: Metric, order: Sequence[str], name: str) -> Table:
    """A row a series, a column a length other than the training length."""
    numbers = context_gains(rows, metric)
    what = context_gain_metric(metric)
    train_len = int(rows["train_len"].iat[0])
    lengths = [length for length in sorted(numbers["eval_len"].unique()) if length != train_len]
    lines = {(line.scheme, line.extension, line.eval_len): line for line in numbers.itertuples()}
    return Table(
        name=name,
        title="Gain of context over the training length, by context length in tokens",
        caption=caption([(rows, numbers, what)], NOTE, intervals="intervals", notes=False),
        header=["scheme", *(f"{length} ({length / train_len:g}×)" for length in lengths)],
        body=[
            [
                TableCell(series_label(*series)),
                *(format_cell(lines.get((*series, length))) for length in lengths),
            ]
            for series in ordered_series(numbers, order)
        ],
        numbers=numbers.assign(metric=what.name, train_len=train_len),
    )
