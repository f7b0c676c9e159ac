"""Training batches as a pure function of (seed, step): text windows and synthetic sequences side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posbench.data import algorithmic, associative_recall, repeated
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import unknown

SYNTHETIC_TASKS = ("associative_recall", "repeated", *algorithmic.RULES)


def check_synthetic_task(kind: str, length: int, num_keys: int, query_fraction: float) -> None:
    """Whether sequences of a kind, a share `query_fraction` of them evaluated, can be read as exactly `length` tokens.

    Raises:
        ConfigError: if there is no such kind.
        LengthError: if the length is none of it.
    """
    if kind not in SYNTHETIC_TASKS:
        raise unknown("train.synthetic_task", kind, SYNTHETIC_TASKS)
    if kind == "associative_recall" and query_fraction:
        associative_recall.num_records(length, num_keys)
    elif kind == "repeated":
        repeated.periods(length)
    elif kind in algorithmic.RULES:
        algorithmic.num_symbols(length)


@dataclass(frozen=True, eq=False)
class Batch:
    """(B, L+1) int64 ids and (B, L) booleans: which of the L targets, ids shifted by one, count in the loss.

    One id more than the training length, so that all L positions are trained.
    """

    ids: np.ndarray
    loss_mask: np.ndarray


@dataclass(frozen=True)
class Batches:
    """Draws windows at any offset of a shard; every scheme of an experiment gets the same ones.

    Attributes:
        seq_len: L, tokens read by the model.
        batch_size: B a step.
        synthetic_fraction: share of the sequences that are synthetic, rounded to whole sequences.
        query_fraction: share of those that have the evaluated form.
        synthetic_task: what those are, one of SYNTHETIC_TASKS.
    """

    shard: Shard
    vocabulary: Vocabulary
    seq_len: int
    batch_size: int
    synthetic_fraction: float
    query_fraction: float
    seed: int
    synthetic_task: str = "associative_recall"

    def get_batch(self, step: int) -> Batch:
        """The batch of a step, whatever came before it."""
        rng = np.random.default_rng([self.seed, step])
        size = self.seq_len + 1
        n_synthetic = round(self.synthetic_fraction * self.batch_size)
        ids = np.empty((self.batch_size, size), np.int64)
        loss_mask = np.ones((self.batch_size, size), bool)
        starts = rng.integers(len(self.shard.tokens) - size + 1, size=self.batch_size)
        for row, start in enumerate(starts):
            text = self.shard.tokens[start : start + size]
            if row < n_synthetic:
                ids[row], loss_mask[row] = self.sequence(rng, text)
            else:
                ids[row] = text
        return Batch(ids, loss_mask[:, 1:])

    def sequence(self, rng: np.random.Generator, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A synthetic sequence of L+1 ids, and which of them count; `text` is running text for those that need some."""
        if self.synthetic_task == "associative_recall":
            return associative_recall.training_sequence(
                rng, self.vocabulary, text, self.seq_len, self.query_fraction
            )
        if self.synthetic_task == "repeated":
            ids = repeated.training_sequence(rng, text, self.seq_len, self.query_fraction)
            return ids, np.ones(len(ids), bool)
        return algorithmic.training_sequence(
            rng, self.vocabulary, self.synthetic_task, self.seq_len, self.query_fraction
        )
