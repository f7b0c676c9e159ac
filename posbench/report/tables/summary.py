"""Aggregation of rows to numbers with intervals.

A number is a ratio of sums over all documents or contexts of a point: weighted by tokens, not a mean of means.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from posbench.errors import DataError
from posbench.report.tables.metrics import BASELINES, METRICS, Metric
from posbench.report.tables.selection import SERIES_COLUMNS, conclusive, propagate_gate
from posbench.results.rows import STATUSES
from posbench.results.statistics import Interval, interval, paired_interval

CLUSTER = ["eval_seed", "doc_id"]
SUMMARY = ["estimate", "low", "high", "interval_method", "seeds", "seeds_left_out", "seeds_not_learned"]
SUMMARY += ["n_docs", "n", "status"]
NOT_LEARNED = STATUSES.index("not_learned")
NO_INTERVAL = Interval(math.nan, math.nan, math.nan, "")


def metric_sums(
    rows: pd.DataFrame, metric: Metric, by: Sequence[str], chosen: pd.Series | bool = True
) -> pd.DataFrame:
    """Returns the sums numerator, denominator and n of a metric, by group.

    Args:
        chosen: mask of the rows to sum.

    Raises:
        DataError: rows of the metric's denominator are missing.
    """
    measured = rows["value_sum"].notna() & chosen
    of_metric = rows.loc[measured & (rows["metric"] == metric.row_metric), [*by, "value_sum", "n"]]
    of_metric = of_metric.assign(numerator=of_metric["value_sum"] * metric.scale)
    sums = of_metric.groupby(list(by))[["numerator", "n"]].sum()
    sums["denominator"] = sums["n"].astype(float)
    if metric.normalize_by:
        per = rows.loc[measured & (rows["metric"] == metric.normalize_by), [*by, "value_sum"]]
        sums["denominator"] = per.groupby(list(by))["value_sum"].sum().reindex(sums.index)
        if sums["denominator"].isna().any():
            raise DataError(
                f"{metric.name} needs {metric.normalize_by!r} rows beside {metric.row_metric!r}: evaluate again"
            )
    return sums


def aggregate(rows: pd.DataFrame, metric: Metric, by: Sequence[str] = ("eval_len",)) -> pd.DataFrame:
    """Returns a line per series and point, with the columns of SUMMARY.

    Args:
        by: columns that define a point.
    """
    rows = propagate_gate(rows)
    group = [*SERIES_COLUMNS, *by]
    sums = metric_sums(rows, metric, [*group, "train_seed", *CLUSTER], conclusive(rows))
    numerator, denominator, n = (sums[name].to_numpy() for name in ("numerator", "denominator", "n"))
    codes = dict(zip(sums.index.names, sums.index.codes, strict=True))
    seed_N = codes["train_seed"]
    document_N = codes["eval_seed"] * np.int64(1 + codes["doc_id"].max(initial=0)) + codes["doc_id"]
    of_point = sums.groupby(group).indices
    by_seed = worst_status(rows, [*group, "train_seed"]).unstack("train_seed")
    # A seed without rows at a point is left out there, if the series has rows of it elsewhere.
    n_seeds_S = by_seed.groupby(SERIES_COLUMNS).count().gt(0).sum(axis=1)
    not_learned = by_seed.eq(NOT_LEARNED).sum(axis=1)
    lines = []
    for key, worst, n_not_learned in zip(by_seed.index, by_seed.max(axis=1), not_learned, strict=True):
        here = of_point.get(key, np.array([], dtype=int))
        seeds, seed_here = np.unique(seed_N[here], return_inverse=True)
        found = NO_INTERVAL
        if len(here):
            found = interval(numerator[here], denominator[here], seed_here, document_N[here])
        lines.append(
            dict(zip(group, key, strict=True))
            | {name: metric.shown(getattr(found, name)) for name in ("estimate", "low", "high")}
            | {"interval_method": found.method, "seeds": len(seeds)}
            | {
                "seeds_left_out": int(n_seeds_S[key[:2]]) - len(seeds),
                "seeds_not_learned": int(n_not_learned),
            }
            # Of a seed, on average: the clusters of seeds can differ, as the documents with key tokens do.
            | {"n_docs": len(here) // max(len(seeds), 1), "n": int(n[here].sum())}
            | {"status": STATUSES[int(worst)]}
        )
    return pd.DataFrame(lines, columns=[*group, *SUMMARY])


def worst_status(rows: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """Returns the worst status of each group, as its index in STATUSES."""
    ranks = rows["status"].map({status: rank for rank, status in enumerate(STATUSES)}).astype(int)
    return rows[list(by)].assign(rank=ranks).groupby(list(by))["rank"].max()


def paired_intervals(pairs: pd.DataFrame, by: Sequence[str]) -> dict[tuple, Interval]:
    """Returns the difference of two ratios, a minus b, with its interval, by group.

    Intervals are those of `paired_interval`. Seeds with a denominator of zero do not count; groups without a seed are
    missing.

    Args:
        pairs: columns numerator_a, denominator_a, numerator_b and denominator_b, by `by`, training seed and cluster.
    """
    seed = [*by, "train_seed"]
    counted = pairs.groupby(seed)[["denominator_a", "denominator_b"]].transform("sum").gt(0).all(axis=1)
    pairs = pairs[counted]
    if pairs.empty:  # pandas cannot read the categories of an empty index that joins have made
        return {}
    sides = [
        [pairs[f"{part}_{side}"].to_numpy() for part in ("numerator", "denominator")] for side in ("a", "b")
    ]
    seed_N = pairs.index.get_level_values("train_seed").to_numpy()
    cluster_N = pairs.index.droplevel([name for name in pairs.index.names if name not in CLUSTER])
    cluster_N = pd.factorize(cluster_N)[0]
    intervals = {}
    for key, here in pairs.groupby(list(by)).indices.items():
        a, b = ((numerator[here], denominator[here]) for numerator, denominator in sides)
        intervals[key] = paired_interval(a, b, seed_N[here], cluster_N[here])
    return intervals


def baseline_values(rows: pd.DataFrame, names: Sequence[str] = BASELINES) -> pd.DataFrame:
    """Returns the baselines by length, a column for each that the rows have; they do not depend on the model."""
    ratios = []
    for name in names:
        sums = metric_sums(rows, METRICS[name], ["eval_len"])
        ratios += [] if sums.empty else [(sums["numerator"] / sums["denominator"]).rename(name)]
    return (
        pd.concat(ratios, axis=1).sort_index()
        if ratios
        else pd.DataFrame(index=pd.Index([], name="eval_len"))
    )
