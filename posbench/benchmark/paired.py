"""Alternating timings of two functions, so that other load on the machine affects both equally."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEAST_PAIRS = 9
# For work that takes many seconds.
FEW_PAIRS = 3
RESAMPLES = 2000
Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Ratio of our measurement to the peer's; below 1 ours is smaller.

    Attributes:
        median: median of the ratios over the pairs.
        low, high: 95% bootstrap interval of the median.
        ours, theirs: median of each measurement, in the unit of the line.
        pairs: number of pairs.
    """

    median: float
    low: float
    high: float
    ours: float
    theirs: float
    pairs: int


def time_paired(
    ours: Work, theirs: Work, seconds: float, warm: int = 2, least: int = LEAST_PAIRS, theirs_parts: int = 1
) -> Ratio:
    """Times two functions in milliseconds, alternating for `seconds` and for at least `least` pairs.

    Args:
        warm: calls of each before the first timing.
        theirs_parts: number of equal parts of the peer's work, of which `theirs` does one; its time counts so often.
    """
    for work in (ours, theirs) * warm:  # fills allocators and caches
        work()
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        while len(times) < least or time.perf_counter() < until:
            # The order alternates too: the second of a pair meets the caches that the first has left.
            if len(times) % 2 == 0:
                a = _seconds(ours)
                b = _seconds(theirs)
            else:
                b = _seconds(theirs)
                a = _seconds(ours)
            times.append((a, b))
    finally:
        gc.enable()
    return of_pairs(1e3 * np.array(times) * (1, theirs_parts))


def of_pairs(pairs_P2: np.ndarray) -> Ratio:
    """Computes the ratio from pairs_P2: our measurement and the peer's for each pair."""
    ratio_P = pairs_P2[:, 0] / pairs_P2[:, 1]
    draws_RP = np.random.default_rng(0).choice(ratio_P, (RESAMPLES, len(ratio_P)))
    low, high = np.quantile(np.median(draws_RP, axis=1), [0.025, 0.975])
    ours, theirs = np.median(pairs_P2, axis=0)
    return Ratio(float(np.median(ratio_P)), float(low), float(high), float(ours), float(theirs), len(ratio_P))


def _seconds(work: Work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
