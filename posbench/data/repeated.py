"""Running text over and over: training sequences from which copying what was read before is learned.

A small model trained on short windows of text alone never learns to copy text, since little repeats within one;
larger ones do by themselves (Olsson et al. In-context Learning and Induction Heads. 2022. arXiv:2209.11895).
"""

from __future__ import annotations

import numpy as np

from posbench.errors import LengthError

SHORTEST = 4


def tiled(text: np.ndarray, period: int, length: int) -> np.ndarray:
    """(length + 1,) ids: the first, which is only read, and then the `period` that follow it, over and over.

    The first may be a bos, which no period should hold.
    """
    return np.concatenate([text[:1], np.resize(text[1 : period + 1], length)])


def periods(length: int) -> tuple[int, int]:
    """The shortest and the longest period of a training sequence of `length` tokens: half of it.

    Raises:
        LengthError: if the length is under twice the shortest.
    """
    if length < 2 * SHORTEST:
        raise LengthError(
            f"repeated text in {length} tokens: a period has {SHORTEST} or more; choose {2 * SHORTEST} or more"
        )
    return SHORTEST, length // 2


def training_sequence(
    rng: np.random.Generator, text: np.ndarray, length: int, query_fraction: float
) -> np.ndarray:
    """(length + 1,) ids, all of which count; a share `query_fraction` has the longest period, the others any."""
    shortest, longest = periods(length)
    period = longest if rng.random() < query_fraction else int(rng.integers(shortest, longest + 1))
    return tiled(text, period, length)
