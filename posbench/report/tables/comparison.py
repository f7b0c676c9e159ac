"""Paired differences between the series of a table: what both find hard cancels.

With one seed the pairs are its documents or contexts; with several they are the seeds, whose differences are taken
over the documents that both have. Holm's p is over all pairs at all lengths of the table.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posbench.report.tables.measures import Measure
from posbench.report.tables.selection import SERIES, conclusive, gated, label, series_of
from posbench.report.tables.summary import CLUSTER, totals
from posbench.results.rows import STATUSES
from posbench.results.statistics import Interval, holm, over_seeds, paired_over_clusters

COLUMNS = ["eval_len", "a", "b", "a_minus_b", "low", "high", "interval", "seeds", "documents"]
COLUMNS += ["p", "p_holm", "reading"]
ALPHA = 0.05
TIE = "not told apart"
_NOTHING = Interval(math.nan, math.nan, math.nan, "")


def compare(rows: pd.DataFrame, measure: Measure, order: Sequence[str] = ()) -> pd.DataFrame:
    """A line per length and pair of series: a - b, its 95% interval, Holm's p, and what it says in words.

    The differences are those of the ratios, as nats where a measure is shown as an exp. `documents` is how
    many of them (or contexts) both have, `seeds` likewise.
    """
    rows = gated(rows)
    sums = totals(conclusive(rows), measure, ["eval_len", *SERIES, "train_seed", *CLUSTER])
    severity = rows["status"].map({status: rank for rank, status in enumerate(STATUSES)}).astype(int)
    worst = rows.assign(severity=severity).groupby(["eval_len", *SERIES])["severity"].max()
    nobody = sums.iloc[:0]
    lines = []
    for length in sorted(rows["eval_len"].unique()):
        at_length = sums.loc[[length]] if length in sums.index else nobody
        tops, bottoms = (at_length[side].unstack(SERIES) for side in ("top", "bottom"))
        seed_of, document_of = (tops.index.to_frame()[name] for name in ("train_seed", "document"))
        held = {key: np.stack([tops[key], bottoms[key]]) for key in tops}
        present = [key for key in series_of(rows, order) if (length, *key) in worst]
        for a, b in combinations(present, 2):
            line = {"eval_len": length, "a": label(*a), "b": label(*b), "p": math.nan}
            if a in held and b in held:
                shared = ~np.isnan([*held[a], *held[b]]).any(axis=0)
                interval = _difference(seed_of[shared].to_numpy(), held[a][:, shared], held[b][:, shared])
                line |= {"a_minus_b": interval.estimate, "low": interval.low, "high": interval.high}
                line |= {"interval": interval.kind, "p": interval.p if interval.kind else math.nan}
                line |= {"seeds": seed_of[shared].nunique(), "documents": document_of[shared].nunique()}
            lacking = [STATUSES[worst[length, *key]] for key in (a, b) if key not in held]
            lines.append(line | {"reading": _silence(lacking)})
    found = pd.DataFrame(lines, columns=COLUMNS)
    tested = found["p"].notna()
    found.loc[tested, "p_holm"] = holm(found.loc[tested, "p"].tolist())
    found.loc[tested, "reading"] = [_reading(line, measure) for line in found[tested].itertuples()]
    return found


def _silence(lacking: Sequence[str]) -> str:
    return f"no verdict: {', '.join(dict.fromkeys(lacking)).replace('_', ' ') or 'too few documents'}"


def _reading(line: Any, measure: Measure) -> str:
    if line.p_holm >= ALPHA:
        return TIE
    if measure.lower_is_better is None:
        return f"{line.a} is {'above' if line.a_minus_b > 0 else 'below'} {line.b}"
    better, worse = (line.a, line.b) if (line.a_minus_b < 0) == measure.lower_is_better else (line.b, line.a)
    return f"{better} beats {worse}"


def _difference(seed_of: NDArray, a: NDArray, b: NDArray) -> Interval:
    """a - b, each a row of sums and one of counts, over the seeds and documents that both have."""
    seeds, seed_of = np.unique(seed_of, return_inverse=True)
    if not len(seeds):
        return _NOTHING
    (top_a, bottom_a), (top_b, bottom_b) = a, b
    if len(seeds) == 1:
        return paired_over_clusters((top_a, bottom_a), (top_b, bottom_b))
    by_seed = [np.bincount(seed_of, side) for side in (top_a, bottom_a, top_b, bottom_b)]
    return over_seeds(by_seed[0] / by_seed[1] - by_seed[2] / by_seed[3])
