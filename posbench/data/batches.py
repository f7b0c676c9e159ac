"""Training batches as a pure function of (seed, step): text windows and synthetic records side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posbench.data.associative_recall import training_sequence
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Batch:
    """(B, L+1) int64 ids and (B, L) booleans: which of the L targets, ids shifted by one, count in the loss.

    One id more than the training length, so that all L positions are trained.
    """

    ids: np.ndarray
    counted: np.ndarray


@dataclass(frozen=True)
class Batches:
    """Draws windows at any offset of a shard; every scheme of an experiment gets the same ones.

    Attributes:
        length: L, tokens read by the model.
        sequences: B a step.
        records: share of the sequences that are synthetic records, rounded to whole sequences.
        asked: share of those that have the evaluated form.
    """

    shard: Shard
    vocabulary: Vocabulary
    length: int
    sequences: int
    records: float
    asked: float
    seed: int

    def at(self, step: int) -> Batch:
        """The batch of a step, whatever came before it."""
        rng = np.random.default_rng([self.seed, step])
        size = self.length + 1
        synthetic = round(self.records * self.sequences)
        ids = np.empty((self.sequences, size), np.int64)
        counted = np.ones((self.sequences, size), bool)
        starts = rng.integers(len(self.shard.tokens) - size + 1, size=self.sequences)
        for row, start in enumerate(starts):
            text = self.shard.tokens[start : start + size]
            if row < synthetic:
                ids[row], counted[row] = training_sequence(
                    rng, self.vocabulary, text, self.length, self.asked
                )
            else:
                ids[row] = text
        return Batch(ids, counted[:, 1:])
