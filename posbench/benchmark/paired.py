"""Two pieces of work timed in turn, so that what else the machine does falls on both."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEAST_PAIRS = 9
# Of work that takes many seconds.
FEW_PAIRS = 3
RESAMPLES = 2000
Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs: the median over pairs and its 95% bootstrap interval, below 1 where ours takes less.

    `ours` and `theirs` are the medians of each, in the unit of the line.
    """

    median: float
    low: float
    high: float
    ours: float
    theirs: float
    pairs: int


def time_paired(ours: Work, theirs: Work, seconds: float, warm: int = 2, least: int = LEAST_PAIRS) -> Ratio:
    """Milliseconds: alternate the two for about `seconds`, and for `least` pairs at least."""
    for work in (ours, theirs) * warm:  # allocations, caches, and whatever is made at the first call
        work()
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        while len(times) < least or time.perf_counter() < until:
            # Who goes first alternates as well: the second finds warmer or colder caches.
            if len(times) % 2 == 0:
                a = _seconds(ours)
                b = _seconds(theirs)
            else:
                b = _seconds(theirs)
                a = _seconds(ours)
            times.append((a, b))
    finally:
        gc.enable()
    return of_pairs(1e3 * np.array(times))


def of_pairs(pairs_P2: np.ndarray) -> Ratio:
    """The ratio from what was measured of each pair."""
    ratio_P = pairs_P2[:, 0] / pairs_P2[:, 1]
    draws_RP = np.random.default_rng(0).choice(ratio_P, (RESAMPLES, len(ratio_P)))
    low, high = np.quantile(np.median(draws_RP, axis=1), [0.025, 0.975])
    ours, theirs = np.median(pairs_P2, axis=0)
    return Ratio(float(np.median(ratio_P)), float(low), float(high), float(ours), float(theirs), len(ratio_P))


def _seconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
