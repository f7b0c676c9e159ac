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
    held = rows.loc[measured & (rows["metric"] == metric.row_metric), [*by, "value_sum", "n"]]
    sums = held.assign(numerator=held["value_sum"] * metric.scale).groupby(list(by))[["numerator", "n"]].sum()
    sums["denominator"] = sums["n"].astype(float)
    if metric.normalize_by:
        per = rows.loc[measured & (rows["metric"] == metric.normalize_by), [*by, "value_sum"]]
        sums["denominator"] = per.groupby(list(by))["value_sum"].sum().reindex(sums.index)
        if sums["denominator"].isna().any():
            raise DataError(
                f"{metric.name} needs {metric.normalize_by!r} rows beside {metric.row_metric!r}: evaluate again"
            )
    return sums


def conclusive_sums(rows: pd.DataFrame, metric: Metric, by: Sequence[str]) -> pd.DataFrame:
    """The sums of a metric over the rows of which a number may be made."""
    chosen = rows["metric"].isin(metric.row_metrics) & conclusive(rows)
    return metric_sums(rows.loc[chosen, [*by, "metric", "value_sum", "n"]], metric, by)


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
    codes = dict(zip(sums.index.names, sums.index.codes, strict=True))
    seed_of = codes["train_seed"]
    document_of = codes["eval_seed"] * np.int64(1 + codes["doc_id"].max(initial=0)) + codes["doc_id"]
    places = sums.groupby(group).indices
    by_seed = worst_status(rows, [*group, "train_seed"]).unstack("train_seed")
    lines = []
    for key, worst, n_seeds in zip(by_seed.index, by_seed.max(axis=1), by_seed.count(axis=1), strict=True):
        here = places.get(key, np.array([], dtype=int))
        seeds, seed_here = np.unique(seed_of[here], return_inverse=True)
        interval = _interval(numerator[here], denominator[here], seed_here, within_seed)
        lines.append(
            dict(zip(group, key, strict=True))
            | {name: metric.shown(getattr(interval, name)) for name in ("estimate", "low", "high")}
            | {"interval_method": interval.method, "seeds": len(seeds)}
            | {"seeds_left_out": n_seeds - len(seeds)}
            | {"n_docs": len(np.unique(document_of[here])), "n": int(n[here].sum())}
            | {"status": STATUSES[int(worst)]}
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
    if not len(seed_of):
        return NO_INTERVAL
    if seed_of.max() > 0 or not within_seed:
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
