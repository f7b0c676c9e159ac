"""Paired differences between the series of a table: what both find hard cancels."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posbench.statistics import Interval, holm, over_seeds, paired_over_clusters
from posbench.tables.measures import Measure
from posbench.tables.selection import SERIES, conclusive, gated, label, series_of
from posbench.tables.summary import CLUSTER, totals

COLUMNS = ["eval_len", "a", "b", "a_minus_b", "low", "high", "interval", "p", "p_holm"]


def compare(rows: pd.DataFrame, measure: Measure, order: Sequence[str] = ()) -> pd.DataFrame:
    """Paired differences between all series at each length, with Holm's p over the pairs of the length."""
    sums = totals(conclusive(gated(rows)), measure, ["eval_len", *SERIES, "train_seed", *CLUSTER])
    lines = []
    for length, at_length in sums.groupby("eval_len"):
        tops, bottoms = (at_length[side].unstack(SERIES) for side in ("top", "bottom"))
        seed_of = tops.index.get_level_values("train_seed").to_numpy()
        present = [key for key in series_of(rows, order) if key in tops]
        held = {key: np.stack([tops[key], bottoms[key]]) for key in present}
        differences = [(a, b, _difference(seed_of, held[a], held[b])) for a, b in combinations(present, 2)]
        found = [(a, b, interval) for a, b, interval in differences if interval and interval.kind]
        adjusted = holm([interval.p for *_, interval in found])
        lines += [
            {"eval_len": length, "a": label(*a), "b": label(*b), "a_minus_b": interval.estimate}
            | {"low": interval.low, "high": interval.high, "interval": interval.kind}
            | {"p": interval.p, "p_holm": p}
            for (a, b, interval), p in zip(found, adjusted, strict=True)
        ]
    return pd.DataFrame(lines, columns=COLUMNS)


def _difference(seed_of: NDArray, a: NDArray, b: NDArray) -> Interval | None:
    """a - b over the seeds and documents that both have."""
    shared = ~np.isnan([*a, *b]).any(axis=0)
    seeds, seed_of = np.unique(seed_of[shared], return_inverse=True)
    if not len(seeds):
        return None
    (top_a, bottom_a), (top_b, bottom_b) = a[:, shared], b[:, shared]
    if len(seeds) == 1:
        return paired_over_clusters((top_a, bottom_a), (top_b, bottom_b))
    by_seed = [np.bincount(seed_of, side) for side in (top_a, bottom_a, top_b, bottom_b)]
    return over_seeds(by_seed[0] / by_seed[1] - by_seed[2] / by_seed[3])
