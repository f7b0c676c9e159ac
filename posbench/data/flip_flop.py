"""Flip-flop language: instructions to write, read or ignore a bit; a read repeats the bit of the last write.

Liu et al. Exposing Attention Glitches with Flip-Flop Language Modeling. NeurIPS 2023, section 3. arXiv:2306.00946. A
sequence is bos and pairs of an instruction and a bit. The first instruction is a write, the last a read, others are
ignored with probability p, and written or read with (1 - p) / 2 each. Bits are random, except those after a read.
Only the bits after reads are in the loss. Deviation: a bos before the paper's sequence.
"""

from __future__ import annotations

import numpy as np

from posbench.data.vocabulary import Vocabulary
from posbench.errors import LengthError

WRITE, READ, IGNORE = range(3)  # keys 0 to 2; the bits are keys 3 and 4
SYMBOLS = 5
MIN_LENGTH = 4
TRAIN_IGNORE = 0.8  # share of ignored instructions in training


def check_length(length: int, num_keys: int) -> None:
    """Raises LengthError if a sequence cannot have `length` tokens, or there are too few keys."""
    if length < MIN_LENGTH or length % 2:
        raise LengthError(
            f"flip_flop in {length} tokens: instructions and bits are pairs; choose an even length of {MIN_LENGTH} or more"
        )
    if num_keys < SYMBOLS:
        raise LengthError(
            f"flip_flop needs {SYMBOLS} symbols and data.num_keys is {num_keys}: raise it to {SYMBOLS}"
        )


def sequence(
    rng: np.random.Generator, vocabulary: Vocabulary, length: int, ignore: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (length + 1,) ids and (length + 1,) booleans, true for the bits after reads.

    Args:
        ignore: probability of an ignored instruction.
    """
    count = length // 2
    probabilities = [(1 - ignore) / 2, (1 - ignore) / 2, ignore]
    instructions = rng.choice(3, count, p=probabilities)
    instructions[0], instructions[-1] = WRITE, READ
    bits = rng.integers(2, size=count)
    last_write = np.maximum.accumulate(np.where(instructions == WRITE, np.arange(count), 0))
    bits = np.where(instructions == READ, bits[last_write], bits)
    keys = vocabulary.key_ids
    ids = np.concatenate([[vocabulary.bos], np.stack([keys[instructions], keys[3 + bits]], 1).ravel()])
    loss_mask = np.zeros(length + 1, bool)
    loss_mask[2::2] = instructions == READ
    return ids, loss_mask
