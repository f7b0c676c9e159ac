"""What more context gives: the loss of the same targets at the training length minus their loss at others.

Of the protocol of fixed targets, whose targets do not change with the length. Positive where context helps, negative
where it harms. Paired by document, since what makes a document hard is the same at both lengths.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from posbench.report.tables.captions import caption
from posbench.report.tables.cells import cell
from posbench.report.tables.markup import Cell, Table
from posbench.report.tables.measures import Measure
from posbench.report.tables.selection import SERIES, conclusive, gated, label, series_of
from posbench.report.tables.summary import CLUSTER, summarise, totals
from posbench.results.statistics import Interval, over_seeds, paired_over_clusters

NOTE = (
    "The gain is the loss at the training length minus the loss at this length, of the same tokens, paired by document: "
    "above 0 context helps, below 0 it harms."
)
_NOTHING = Interval(math.nan, math.nan, math.nan, "")


def gain_of(measure: Measure) -> Measure:
    """How a gain is called and read."""
    return replace(
        measure, name="context_gain", label=f"gain of context ({measure.label})", lower_is_better=False
    )


def gains(rows: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """A summary, a line per series and length, whose estimate is the gain over the training length.

    Intervals are of the paired difference: a bootstrap over documents, or Student's t over several seeds. A
    length is without a number where either has none.
    """
    numbers = summarise(rows, measure)
    sums = totals(conclusive(gated(rows)), measure, [*SERIES, "eval_len", "train_seed", *CLUSTER])
    home = int(rows["train_len"].iat[0])
    found = [
        _paired(sums, (line.scheme, line.extension, home), (line.scheme, line.extension, line.eval_len))
        for line in numbers.itertuples()
    ]
    columns = {name: [getattr(one, name) for one in found] for name in ("estimate", "low", "high")}
    return numbers.assign(**columns, interval=[one.kind for one in found])


def _paired(sums: pd.DataFrame, home: tuple, here: tuple) -> Interval:
    if home not in sums.index or here not in sums.index:
        return _NOTHING
    both = sums.loc[home].merge(
        sums.loc[here], left_index=True, right_index=True, suffixes=("_home", "_here")
    )
    by_seed = both.groupby("train_seed").sum()
    if len(by_seed) > 1:
        at_home = by_seed["top_home"] / by_seed["bottom_home"]
        return over_seeds(at_home - by_seed["top_here"] / by_seed["bottom_here"])
    if both.empty:
        return _NOTHING
    return paired_over_clusters(
        (both["top_home"], both["bottom_home"]), (both["top_here"], both["bottom_here"])
    )


def context_gain(rows: pd.DataFrame, measure: Measure, order: Sequence[str], name: str) -> Table:
    """A row a series, a column a length other than the training length."""
    numbers = gains(rows, measure)
    what = gain_of(measure)
    train_len = int(rows["train_len"].iat[0])
    lengths = [length for length in sorted(numbers["eval_len"].unique()) if length != train_len]
    lines = {(line.scheme, line.extension, line.eval_len): line for line in numbers.itertuples()}
    return Table(
        name=name,
        title="Gain of context over the training length, by context length in tokens",
        caption=caption([(rows, numbers, what)], NOTE, intervals="intervals", notes=False),
        header=["scheme", *(f"{length} ({length / train_len:g}×)" for length in lengths)],
        body=[
            [Cell(label(*series)), *(cell(lines.get((*series, length))) for length in lengths)]
            for series in series_of(numbers, order)
        ],
        numbers=numbers.assign(measure=what.name, train_len=train_len),
    )
