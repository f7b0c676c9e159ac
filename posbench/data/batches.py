"""Training batches as a pure function of (seed, step): text windows and synthetic sequences side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posbench.data import algorithmic, associative_recall, repeated
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import unknown

SYNTHETIC = ("records", "repeated", *algorithmic.RULES)


def check_synthetic(kind: str, length: int, keys: int, asked: float) -> None:
    """Whether sequences of a kind, a share `asked` of them evaluated, can be read as exactly `length` tokens.

    Raises:
        ConfigError: if there is no such kind.
        LengthError: if the length is none of it.
    """
    if kind not in SYNTHETIC:
        raise unknown("train.synthetic", kind, SYNTHETIC)
    if kind == "records" and asked:
        associative_recall.records_in(length, keys)
    elif kind == "repeated":
        repeated.periods(length)
    elif kind in algorithmic.RULES:
        algorithmic.symbols_in(length)


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
        records: share of the sequences that are synthetic, rounded to whole sequences.
        asked: share of those that have the evaluated form.
        synthetic: what those are, one of SYNTHETIC.
    """

    shard: Shard
    vocabulary: Vocabulary
    length: int
    sequences: int
    records: float
    asked: float
    seed: int
    synthetic: str = "records"

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
                ids[row], counted[row] = self.sequence(rng, text)
            else:
                ids[row] = text
        return Batch(ids, counted[:, 1:])

    def sequence(self, rng: np.random.Generator, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A synthetic sequence of L+1 ids, and which of them count; `text` is running text for those that need some."""
        if self.synthetic == "records":
            return associative_recall.training_sequence(rng, self.vocabulary, text, self.length, self.asked)
        if self.synthetic == "repeated":
            ids = repeated.training_sequence(rng, text, self.length, self.asked)
            return ids, np.ones(len(ids), bool)
        return algorithmic.training_sequence(rng, self.vocabulary, self.synthetic, self.length, self.asked)
