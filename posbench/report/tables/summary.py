"""Rows to numbers: here perplexity, bits per byte and accuracy are born, each with its interval.

A number is a ratio of sums over all documents or contexts of a point: token-weighted, never a mean of means.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posbench.errors import DataError
from posbench.report.tables.measures import BASELINES, MEASURES, Measure
from posbench.report.tables.selection import SERIES, conclusive, gated
from posbench.results.rows import STATUSES
from posbench.results.statistics import Interval, over_clusters, over_seeds

CLUSTER = ["eval_seed", "document"]
SUMMARY = ["estimate", "low", "high", "interval", "seeds", "seeds_left_out", "documents", "n", "status"]
_NOTHING = Interval(math.nan, math.nan, math.nan, "")


def totals(rows: pd.DataFrame, measure: Measure, by: Sequence[str]) -> pd.DataFrame:
    """Columns top, bottom and n of a measure, summed within each group."""
    rows = rows[rows["value"].notna()]
    held = rows[rows["metric"] == measure.metric]
    sums = held.assign(top=held["value"] * measure.scale).groupby(list(by))[["top", "n"]].sum()
    sums["bottom"] = sums["n"].astype(float)
    if measure.per:
        per = rows[rows["metric"] == measure.per].groupby(list(by))["value"].sum()
        sums["bottom"] = per.reindex(sums.index)
        if sums["bottom"].isna().any():
            raise DataError(
                f"{measure.name} needs {measure.per!r} rows beside {measure.metric!r}: evaluate again"
            )
    return sums


def summarise(
    rows: pd.DataFrame, measure: Measure, by: Sequence[str] = ("eval_len",), within_seed: bool = True
) -> pd.DataFrame:
    """A line per series and point: estimate, low, high, which interval, seeds, documents, n, status.

    Intervals go over seeds where there are several; with one seed over its documents, if asked for.
    """
    rows = gated(rows)
    group = [*SERIES, *by]
    sums = totals(conclusive(rows), measure, [*group, "train_seed", *CLUSTER])
    top, bottom, n = (sums[name].to_numpy() for name in ("top", "bottom", "n"))
    seed_of, document_of = (sums.groupby(keys).ngroup().to_numpy() for keys in ("train_seed", CLUSTER))
    places = sums.groupby(group).indices
    severity = rows["status"].map({status: rank for rank, status in enumerate(STATUSES)}).astype(int)
    worst = rows.assign(severity=severity).groupby([*group, "train_seed"])["severity"].max()
    lines = []
    for key, severities in worst.groupby(group):
        here = places.get(key, np.array([], dtype=int))
        seeds = len(np.unique(seed_of[here]))
        interval = _interval(top[here], bottom[here], seed_of[here], within_seed) if seeds else _NOTHING
        lines.append(
            dict(zip(group, key, strict=True))
            | {name: measure.shown(getattr(interval, name)) for name in ("estimate", "low", "high")}
            | {"interval": interval.kind, "seeds": seeds, "seeds_left_out": len(severities) - seeds}
            | {"documents": len(np.unique(document_of[here])), "n": int(n[here].sum())}
            | {"status": STATUSES[severities.max()]}
        )
    return pd.DataFrame(lines, columns=[*group, *SUMMARY])


def _interval(top: NDArray, bottom: NDArray, seed_of: NDArray, within_seed: bool) -> Interval:
    seeds, seed_of = np.unique(seed_of, return_inverse=True)
    if len(seeds) > 1 or not within_seed:
        return over_seeds(np.bincount(seed_of, top) / np.bincount(seed_of, bottom))
    return over_clusters(top, bottom)


def baselines(rows: pd.DataFrame, names: Sequence[str] = BASELINES) -> pd.DataFrame:
    """Chance and the guess of some value of the context, by length: the same for every model.

    A column for each of `names` that the rows hold.
    """
    ratios = []
    for name in names:
        sums = totals(rows, MEASURES[name], ["eval_len"])
        ratios += [] if sums.empty else [(sums["top"] / sums["bottom"]).rename(name)]
    return (
        pd.concat(ratios, axis=1).sort_index()
        if ratios
        else pd.DataFrame(index=pd.Index([], name="eval_len"))
    )
