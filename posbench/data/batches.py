"""Training batches of text windows and synthetic sequences, as a pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posbench.config.train import TrainSettings, synthetic_sequences
from posbench.data import synthetic
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.instantiate import LARGEST


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of B sequences.

    Attributes:
        ids: (B, L+1) int64 ids: the L inputs, and the same shifted by one as targets.
        loss_mask: (B, L) booleans, true for the targets that are in the loss.
        own_targets: (B, L) int64 ids in place of the shifted ones, for sequences whose answers are not inputs.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    own_targets: np.ndarray | None = None

    @property
    def targets(self) -> np.ndarray:
        """(B, L) int64 ids to be predicted."""
        return self.ids[:, 1:] if self.own_targets is None else self.own_targets

    def rows(self, part: slice) -> Batch:
        """Returns some of the sequences."""
        own = None if self.own_targets is None else self.own_targets[part]
        return Batch(self.ids[part], self.loss_mask[part], own)

    def split(self, size: int) -> list[Batch]:
        """Returns parts of `size` sequences each."""
        return [self.rows(slice(start, start + size)) for start in range(0, len(self.ids), size)]


@dataclass(frozen=True)
class Batches:
    """Draws text windows at random offsets of a shard; all schemes of an experiment get the same batches.

    Attributes:
        seq_len: L, the input tokens of a sequence.
        batch_size: B, the sequences of a step.
        synthetic_fraction: fraction of the sequences that are synthetic, rounded to whole sequences.
        query_fraction: probability of a synthetic sequence to have the evaluated form.
        synthetic_task: kind of the synthetic sequences, one of config.train.SYNTHETIC_TASKS.
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
        n_synthetic = synthetic_sequences(self.synthetic_fraction, self.batch_size)
        ids = np.empty((self.batch_size, size), np.int64)
        loss_mask = np.ones((self.batch_size, size), bool)
        starts = rng.integers(len(self.shard.tokens) - size + 1, size=self.batch_size)
        own_targets = None
        for row, start in enumerate(starts):
            text = self.shard.tokens[start : start + size]
            if row >= n_synthetic:
                ids[row] = text
                continue
            ids[row], loss_mask[row], *targets = synthetic.sequence(
                self.synthetic_task, rng, self.vocabulary, text, self.seq_len, self.query_fraction
            )
            if targets:
                own_targets = np.empty_like(ids) if own_targets is None else own_targets
                own_targets[row] = targets[0]
        if own_targets is not None:
            own_targets[n_synthetic:] = ids[n_synthetic:]
            own_targets = own_targets[:, 1:]
        return Batch(ids, loss_mask[:, 1:], own_targets)


def held_out_batches(shard: Shard, vocabulary: Vocabulary, train: TrainSettings) -> Batches:
    """Returns batches for the validation loss of a training, the same for every seed.

    They are text without synthetic sequences, or, where synthetic sequences are trained alone, such sequences of a seed
    that no training has.
    """
    alone = train.synthetic_fraction == 1
    return Batches(
        shard,
        vocabulary,
        train.seq_len,
        train.batch_size,
        float(alone),
        train.query_fraction if alone else 0.0,
        LARGEST if alone else 0,
        train.synthetic_task,
    )
