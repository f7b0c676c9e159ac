"""Intervals: Student's t over seeds, a cluster bootstrap within a seed, paired differences, Holm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats costs a second of imports for the same quantiles

LEVEL = 0.95
RESAMPLES = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `method` says which, '' where the data allow none (the bounds are NaN)."""

    estimate: float
    low: float
    high: float
    method: str
    p_value: float = float("nan")  # of "the true value is zero", for differences


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Student's t over independent trainings: a bootstrap of three seeds covers 73%, not 95."""
    values_S = np.asarray(values, dtype=float)
    estimate, seeds = float(values_S.mean()), len(values_S)
    if seeds < 2:
        return _no_interval(estimate)
    error = float(values_S.std(ddof=1)) / math.sqrt(seeds)
    reach = float(stdtrit(seeds - 1, 0.5 + level / 2)) * error
    method = f"{level:.0%} Student's t over {seeds} seeds"
    return Interval(estimate, estimate - reach, estimate + reach, method, _t_test(estimate, error, seeds - 1))


def cluster_bootstrap(sums: ArrayLike, counts: ArrayLike, level: float = LEVEL, seed: int = 0) -> Interval:
    """Percentile bootstrap of sum(sums) / sum(counts) that draws whole clusters: documents or contexts.

    Draws of clusters carry their counts along, so that long documents weigh by their tokens.
    """
    sums_C, counts_C = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    estimate = float(sums_C.sum() / counts_C.sum())
    if len(sums_C) < 2:
        return _no_interval(estimate)
    draws_RC = _draws(len(sums_C), seed)
    return _percentiles(estimate, (draws_RC @ sums_C) / (draws_RC @ counts_C), level, len(sums_C))


def paired_cluster_bootstrap(
    a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike], level: float = LEVEL, seed: int = 0
) -> Interval:
    """The difference of two ratios, each (sums, counts) over the same clusters, drawn together.

    What makes a document hard for both cancels. A cluster may count nothing for one of the two; draws in which
    one has no count at all are left out.
    """
    (a_C, na_C), (b_C, nb_C) = ([np.asarray(x, dtype=float) for x in pair] for pair in (a, b))
    estimate = float(a_C.sum() / na_C.sum() - b_C.sum() / nb_C.sum())
    if len(a_C) < 2:
        return _no_interval(estimate)
    draws_RC = _draws(len(a_C), seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference_R = (draws_RC @ a_C) / (draws_RC @ na_C) - (draws_RC @ b_C) / (draws_RC @ nb_C)
    difference_R = difference_R[np.isfinite(difference_R)]
    return _percentiles(estimate, difference_R, level, len(a_C))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p below 0.05 stays below in all with a family-wise error of 5%."""
    p_M = np.asarray(p_values, dtype=float)
    order_M = np.argsort(p_M, kind="stable")
    scaled_M = p_M[order_M] * np.arange(len(p_M), 0, -1)
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order_M] = np.minimum(np.maximum.accumulate(scaled_M), 1.0)
    return adjusted_M.tolist()


@lru_cache(maxsize=4)
def _draws(clusters: int, seed: int) -> Floats:
    """How often each resample draws each cluster: the same draws for every series."""
    generator = np.random.default_rng(seed)
    counts_RC = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES)
    return counts_RC.astype(float)


def _percentiles(estimate: float, values_R: Floats, level: float, clusters: int) -> Interval:
    low, high = np.quantile(values_R, [0.5 - level / 2, 0.5 + level / 2])
    # A share of the draws could not fall under 1 / RESAMPLES, and no pair would survive Holm in a large table.
    p = _t_test(estimate, float(values_R.std(ddof=1)), clusters - 1)
    return Interval(estimate, float(low), float(high), f"{level:.0%} cluster bootstrap", p)


def _t_test(estimate: float, error: float, freedom: int) -> float:
    """Two-sided p; without any spread, zero is either hit or excluded."""
    if error == 0:
        return 0.0 if estimate else 1.0
    return 2 * float(stdtr(freedom, -abs(estimate) / error))


def _no_interval(estimate: float) -> Interval:
    return Interval(estimate, float("nan"), float("nan"), "")
