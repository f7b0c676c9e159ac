"""Repeated text: training sequences that teach a model to copy from its context.

A small model that is trained on short windows of text alone never learns to copy, because little repeats within a
window. Larger models learn it from text (Olsson et al. In-context Learning and Induction Heads. 2022.
arXiv:2209.11895).
"""

from __future__ import annotations

import numpy as np

from posbench.errors import LengthError

MIN_PERIOD = 4  # tokens


def tiled(text: np.ndarray, period: int, length: int) -> np.ndarray:
    """Returns (length + 1,) ids: the first id of the text, and then the `period` ids after it, repeated.

    The first id can be a bos, which is not repeated.
    """
    return np.concatenate([text[:1], np.resize(text[1 : period + 1], length)])


def period_range(length: int) -> tuple[int, int]:
    """Returns the shortest and the longest period of a training sequence of `length` tokens; the longest is half of it.

    Raises:
        LengthError: if the length is less than twice the shortest period.
    """
    if length < 2 * MIN_PERIOD:
        raise LengthError(
            f"repeated text in {length} tokens: a period has {MIN_PERIOD} or more; choose {2 * MIN_PERIOD} or more"
        )
    return MIN_PERIOD, length // 2


def training_sequence(
    rng: np.random.Generator, text: np.ndarray, length: int, query_fraction: float
) -> np.ndarray:
    """Returns (length + 1,) ids, all of which are in the loss.

    The period is the longest possible with probability `query_fraction`, else uniform from the shortest to the longest.
    """
    shortest, longest = period_range(length)
    period = longest if rng.random() < query_fraction else int(rng.integers(shortest, longest + 1))
    return tiled(text, period, length)
