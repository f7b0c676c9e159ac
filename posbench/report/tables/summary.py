"""Rows to numbers: here perplexity, bits per byte and accuracy are born, each with its interval.

A number is a ratio of sums over all documents or contexts of a point: token-weighted, never a mean of means.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posbench.errors import DataError
from posbench.report.tables.metrics import BASELINES, METRICS, Metric
from posbench.report.tables.selection import SERIES_COLUMNS, conclusive, propagate_gate
from posbench.results.rows import STATUSES
from posbench.results.statistics import Interval, cluster_bootstrap, paired_cluster_bootstrap, t_interval

CLUSTER = ["eval_seed", "doc_id"]
SUMMARY = ["estimate", "low", "high", "interval_method", "seeds", "seeds_left_out", "n_docs", "n", "status"]
NO_INTERVAL = Interval(math.nan, math.nan, math.nan, "")


def metric_sums(rows: pd.DataFrame, metric: Metric, by: Sequence[str]) -> pd.DataFrame:
    """Columns numerator, denominator and n of a metric, summed within each group."""
    measured = rows["value_sum"].notna()
    held = rows[measured & (rows["metric"] == metric.row_metric)]
    sums = held.assign(numerator=held["value_sum"] * metric.scale).groupby(list(by))[["numerator", "n"]].sum()
    sums["denominator"] = sums["n"].astype(float)
    if metric.normalize_by:
        per = rows[measured & (rows["metric"] == metric.normalize_by)].groupby(list(by))["value_sum"].sum()
        sums["denominator"] = per.reindex(sums.index)
        if sums["denominator"].isna().any():
            raise DataError(
                f"{metric.name} needs {metric.normalize_by!r} rows beside {metric.row_metric!r}: evaluate again"
            )
    return sums


def conclusive_sums(rows: pd.DataFrame, metric: Metric, by: Sequence[str]) -> pd.DataFrame:
    """The sums of a metric over the rows of which a number may be made."""
    # The rows of one metric are few of all: choosing them first copies less.
    return metric_sums(conclusive(rows[rows["metric"].isin(metric.row_metrics)]), metric, by)


def aggregate(
    rows: pd.DataFrame, metric: Metric, by: Sequence[str] = ("eval_len",), within_seed: bool = True
) -> pd.DataFrame:
    """A line per series and point: estimate, low, high, which interval, seeds, n_docs, n, status.

    Intervals go over seeds where there are several; with one seed over its documents, if asked for.
    """
    rows = propagate_gate(rows)
    group = [*SERIES_COLUMNS, *by]
    sums = conclusive_sums(rows, metric, [*group, "train_seed", *CLUSTER])
    numerator, denominator, n = (sums[name].to_numpy() for name in ("numerator", "denominator", "n"))
    seed_of, document_of = (sums.groupby(keys).ngroup().to_numpy() for keys in ("train_seed", CLUSTER))
    places = sums.groupby(group).indices
    by_point = worst_status(rows, [*group, "train_seed"]).groupby(group).agg(["max", "size"])
    lines = []
    for key, worst, of_seeds in by_point.itertuples(name=None):
        here = places.get(key, np.array([], dtype=int))
        seeds = len(np.unique(seed_of[here]))
        interval = (
            _interval(numerator[here], denominator[here], seed_of[here], within_seed) if seeds else NO_INTERVAL
        )
        lines.append(
            dict(zip(group, key, strict=True))
            | {name: metric.shown(getattr(interval, name)) for name in ("estimate", "low", "high")}
            | {"interval_method": interval.method, "seeds": seeds, "seeds_left_out": of_seeds - seeds}
            | {"n_docs": len(np.unique(document_of[here])), "n": int(n[here].sum())}
            | {"status": STATUSES[worst]}
        )
    return pd.DataFrame(lines, columns=[*group, *SUMMARY])


def worst_status(rows: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """The rank in STATUSES of the worst status of each group."""
    ranks = rows["status"].map({status: rank for rank, status in enumerate(STATUSES)}).astype(int)
    return rows[list(by)].assign(rank=ranks).groupby(list(by))["rank"].max()


def paired_intervals(pairs: pd.DataFrame, by: Sequence[str]) -> dict[tuple, Interval]:
    """Intervals of the differences of two ratios, a's minus b's, by group.

    Args:
        pairs: columns numerator_a, denominator_a, numerator_b and denominator_b by `by`, training seed and cluster.

    Returns:
        Student's t over the differences of the seeds where several count something for both ratios, a bootstrap
        over clusters where one does; a group without any is left out.
    """
    by_seed = pairs.groupby([*by, "train_seed"]).sum()
    by_seed = by_seed[(by_seed[["denominator_a", "denominator_b"]] > 0).all(axis=1)]
    differences = (
        by_seed["numerator_a"] / by_seed["denominator_a"] - by_seed["numerator_b"] / by_seed["denominator_b"]
    ).to_numpy()
    sides = [
        [pairs[f"{part}_{side}"].to_numpy() for part in ("numerator", "denominator")] for side in ("a", "b")
    ]
    clusters = pairs.groupby([*by, "train_seed"]).indices
    found = {}
    for key, seeds in by_seed.groupby(list(by)).indices.items():
        if len(seeds) > 1:
            found[key] = t_interval(differences[seeds])
        else:
            here = clusters[by_seed.index[seeds[0]]]
            a, b = ((numerator[here], denominator[here]) for numerator, denominator in sides)
            found[key] = paired_cluster_bootstrap(a, b)
    return found


def _interval(numerator: NDArray, denominator: NDArray, seed_of: NDArray, within_seed: bool) -> Interval:
    seeds, seed_of = np.unique(seed_of, return_inverse=True)
    if len(seeds) > 1 or not within_seed:
        return t_interval(np.bincount(seed_of, numerator) / np.bincount(seed_of, denominator))
    return cluster_bootstrap(numerator, denominator)


def baseline_values(rows: pd.DataFrame, names: Sequence[str] = BASELINES) -> pd.DataFrame:
    """Chance and the guess of some value of the context, by length: the same for every model.

    A column for each of `names` that the rows hold.
    """
    ratios = []
    for name in names:
        sums = metric_sums(rows, METRICS[name], ["eval_len"])
        ratios += [] if sums.empty else [(sums["numerator"] / sums["denominator"]).rename(name)]
    return (
        pd.concat(ratios, axis=1).sort_index()
        if ratios
        else pd.DataFrame(index=pd.Index([], name="eval_len"))
    )
