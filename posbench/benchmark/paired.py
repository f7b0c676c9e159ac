"""Alternating timings of two functions, so that other load on the machine affects both equally."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import torch

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
        theirs_parts: number of equal parts of the peer's work. `theirs` does one, and its time is multiplied by this
            number.
    """
    for work in (ours, theirs) * warm:  # fills allocators and caches
        work()
    gc.collect()
    gc.disable()
    try:
        pairs_P2 = _alternate(partial(_seconds, ours), partial(_seconds, theirs), seconds, least)
    finally:
        gc.enable()
    return of_pairs(1e3 * pairs_P2 * (1, theirs_parts))


def time_paired_processes(
    ours: Callable[[], Work], theirs: Callable[[], Work], seconds: float, warm: int = 2
) -> Ratio:
    """Times two functions as `time_paired` does, each in a process of its own, which builds it.

    The functions then share neither the settings of the process nor its allocator. One runs while the other waits.

    Args:
        ours, theirs: return the function to time; they are pickled.
    """
    # Both start before one is waited for.
    mine, other = _TimingProcess(ours, warm), _TimingProcess(theirs, warm)
    with mine as a, other as b:
        return of_pairs(1e3 * _alternate(a.time, b.time, seconds, LEAST_PAIRS))


def _alternate(
    ours: Callable[[], float], theirs: Callable[[], float], seconds: float, least: int
) -> np.ndarray:
    """Returns the seconds that both measure, (P, 2)."""
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < until:
        # The order alternates too: the second of a pair meets the caches that the first has left.
        if len(times) % 2 == 0:
            a = ours()
            b = theirs()
        else:
            b = theirs()
            a = ours()
        times.append((a, b))
    return np.array(times)


class _TimingProcess:
    """A process that times one function each time that `time` is called."""

    def __init__(self, make: Callable[[], Work], warm: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        arguments = (make, warm, torch.get_num_threads(), other)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()

    def __enter__(self) -> _TimingProcess:
        self.time()  # the first call returns when the function is built
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()

    def time(self) -> float:
        """Returns the seconds of one call.

        Raises:
            RuntimeError: if the process has failed; it has printed its traceback.
        """
        try:
            self.connection.send(None)
            while not self.connection.poll(1):
                if not self.process.is_alive():
                    raise EOFError
            return self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError("the timed process has ended") from None


def _serve(make: Callable[[], Work], warm: int, threads: int, connection: Connection) -> None:
    torch.set_num_threads(threads)
    work = make()
    for _ in range(warm):
        work()
    gc.collect()
    gc.disable()
    with suppress(EOFError):  # of a caller that has ended
        while True:
            connection.recv()
            connection.send(_seconds(work))


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
