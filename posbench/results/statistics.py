"""Confidence intervals (Student's t over seeds, cluster t within a seed), paired differences, Holm's p."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats costs a second of imports for the same quantiles

LEVEL = 0.95
# Factors of the skewness by which `t_multiples` lengthens and shortens the sides of an interval.
LENGTHEN, SHORTEN = 10.0, 0.3
# Largest error, relative to the estimate, that is rounding and no spread.
ROUNDING = 1e-12
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        method: name of the interval; '' if there are too few data for one, in which case the bounds are NaN.
        p_value: two-sided, of the hypothesis that the true value is zero; meaningful for differences.
    """

    estimate: float
    low: float
    high: float
    method: str
    p_value: float = float("nan")


def t_interval(values: ArrayLike) -> Interval:
    """Returns the mean of independent trainings with Student's t interval.

    A bootstrap over three seeds would cover 73% in place of 95%.
    """
    values_S = np.asarray(values, dtype=float)
    estimate, seeds = float(values_S.mean()), len(values_S)
    if seeds < 2:
        return _no_interval(estimate)
    error = float(values_S.std(ddof=1)) / math.sqrt(seeds)
    return _interval(estimate, error, seeds, f"{LEVEL:.0%} Student's t over {seeds} seeds")


def cluster_interval(sums: ArrayLike, counts: ArrayLike) -> Interval:
    """Returns sum(sums) / sum(counts) with the interval of `t_multiples` over clusters (documents or contexts).

    Clusters are weighted by their counts, such as documents by their tokens.
    """
    return _over_clusters(*_ratio(sums, counts))


def paired_cluster_interval(a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike]) -> Interval:
    """Returns the difference of two ratios, each given as (sums, counts) over the same clusters.

    The difficulty of a document cancels. A cluster may have a count of zero in one of them.
    """
    (ratio_a, influence_a_C), (ratio_b, influence_b_C) = _ratio(*a), _ratio(*b)
    return _over_clusters(ratio_a - ratio_b, influence_a_C - influence_b_C)


def cluster_error(influence_C: Floats) -> Floats:
    """Returns the standard error, (...), from what each cluster adds to the deviation of an estimate, (..., C).

    It is the standard error of the cluster bootstrap in closed form, to first order in 1 / C, times
    sqrt(C / (C - 1)): resampling C clusters underestimates the variance by that factor.
    """
    clusters = influence_C.shape[-1]
    return np.sqrt(clusters / (clusters - 1) * np.square(influence_C).sum(-1))


def t_multiples(influence_C: Floats) -> tuple[Floats, Floats]:
    """Returns the lengths (...) of an interval below and above its estimate, in standard errors.

    Both are the quantile of Student's t with C - 1 degrees of freedom if the clusters are not skewed. The mean of
    skewed data has its errors on the side of the tail, so that this side is longer by LENGTHEN / C and the other
    shorter by SHORTEN, times the skewness relative to the largest that C numbers can have. In simulation the interval
    covers 95 to 96% of means of 3 to 64 normal and 92 to 94% of exponential clusters, where Student's t covers 95 and
    88 to 94%. The lengths matter with few clusters: with 3 the interval is twice as wide as Student's, with 8 a tenth.
    """
    clusters = influence_C.shape[-1]
    quantile = stdtrit(clusters - 1, 0.5 + LEVEL / 2)
    squares = np.square(influence_C).sum(-1)
    cubes = np.power(influence_C, 3).sum(-1)
    largest = max(clusters - 2, 1) / math.sqrt(clusters * (clusters - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = np.nan_to_num(cubes / squares**1.5 / largest) if clusters > 2 else np.zeros_like(squares)

    def multiple(towards_tail: Floats) -> Floats:
        return quantile * (1 + np.where(towards_tail > 0, LENGTHEN / clusters, SHORTEN) * towards_tail)

    return multiple(-skewness), multiple(skewness)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's adjusted p-values: rejecting those below 0.05 keeps the family-wise error at 5%."""
    p_M = np.asarray(p_values, dtype=float)
    order_M = np.argsort(p_M, kind="stable")
    scaled_M = p_M[order_M] * np.arange(len(p_M), 0, -1)
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order_M] = np.minimum(np.maximum.accumulate(scaled_M), 1.0)
    return adjusted_M.tolist()


def _ratio(sums: ArrayLike, counts: ArrayLike) -> tuple[float, Floats]:
    """Returns sum(sums) / sum(counts), and what each cluster adds to its deviation."""
    sums_C, counts_C = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    total = counts_C.sum()
    ratio = float(sums_C.sum() / total)
    return ratio, (sums_C - ratio * counts_C) / total


def _over_clusters(estimate: float, influence_C: Floats) -> Interval:
    if len(influence_C) < 2:
        return _no_interval(estimate)
    below, above = (float(multiple) for multiple in t_multiples(influence_C))
    method = f"{LEVEL:.0%} cluster t adjusted for skewness"
    return _interval(estimate, float(cluster_error(influence_C)), len(influence_C), method, (below, above))


def _interval(
    estimate: float, error: float, n: int, method: str, multiples: tuple[float, float] | None = None
) -> Interval:
    """Returns the interval and p of n independent values: where the interval ends at 0, p is 1 - LEVEL."""
    quantile = float(stdtrit(n - 1, 0.5 + LEVEL / 2))
    below, above = multiples or (quantile, quantile)
    if error > ROUNDING * abs(estimate):
        to_zero = abs(estimate) / error * quantile / (below if estimate > 0 else above)
        p = 2 * float(stdtr(n - 1, -to_zero))
    else:
        # Without spread the t statistic is infinite. All that is known is that n values have the same sign.
        p = math.ldexp(1.0, 1 - min(n, 1000)) if estimate else 1.0
    return Interval(estimate, estimate - below * error, estimate + above * error, method, p)


def _no_interval(estimate: float) -> Interval:
    return Interval(estimate, float("nan"), float("nan"), "")
