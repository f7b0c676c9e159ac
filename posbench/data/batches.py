"""Training batches of text windows and synthetic sequences, as a pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posbench.data import algorithmic, associative_recall, repeated
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import unknown

SYNTHETIC_TASKS = ("associative_recall", "repeated", *algorithmic.RULES)


def check_synthetic_task(kind: str, length: int, num_keys: int, query_fraction: float) -> None:
    """Checks that synthetic sequences of a kind can have exactly `length` tokens.

    Raises:
        ConfigError: if there is no such kind.
        LengthError: if the kind does not allow the length.
    """
    if kind not in SYNTHETIC_TASKS:
        raise unknown("train.synthetic_task", kind, SYNTHETIC_TASKS)
    if kind == "associative_recall" and query_fraction:
        associative_recall.num_records(length, num_keys)
    elif kind == "repeated":
        repeated.period_range(length)
    elif kind in algorithmic.RULES:
        algorithmic.num_symbols(length)


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of B sequences.

    Attributes:
        ids: (B, L+1) int64 ids: the L inputs, and the same shifted by one as targets.
        loss_mask: (B, L) booleans, true for the targets that are in the loss.
    """

    ids: np.ndarray
    loss_mask: np.ndarray


@dataclass(frozen=True)
class Batches:
    """Draws text windows at random offsets of a shard; all schemes of an experiment get the same batches.

    Attributes:
        seq_len: L, the input tokens of a sequence.
        batch_size: B, the sequences of a step.
        synthetic_fraction: fraction of the sequences that are synthetic, rounded to whole sequences.
        query_fraction: probability of a synthetic sequence to have the evaluated form.
        synthetic_task: kind of the synthetic sequences, one of SYNTHETIC_TASKS.
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
        """Returns the batch of a step, which does not depend on earlier calls."""
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
        """Returns the (L+1,) ids and (L+1,) loss mask of a synthetic sequence; `text` is (L+1,) ids of running text."""
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
