"""Which documents are trained on, watched while training and tested."""

import hashlib
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")


def split_by_hash(names: Iterable[str], *, validation: float = 0.05, test: float = 0.05) -> dict[str, str]:
    """A split for every name: the lowest hashes are tested, the next validate, and the rest train.

    Ranks rather than thresholds, so that a handful of documents still fills every split.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    n_test = max(1, round(test * len(ranked)))
    n_held_out = n_test + max(1, round(validation * len(ranked)))
    return {
        name: "test" if rank < n_test else "validation" if rank < n_held_out else "train"
        for rank, name in enumerate(ranked)
    }
