"""Splits of a corpus: train, validation and test."""

import hashlib
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")


def split_by_hash(names: Iterable[str], *, validation: float = 0.05, test: float = 0.05) -> dict[str, str]:
    """Returns a split for every name: the lowest hashes are test, the next validation, the others train.

    Splits follow from the ranks of the hashes and not from thresholds, so that none is empty with a few documents.

    Args:
        validation, test: fractions of the names.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    n_test = max(1, round(test * len(ranked)))
    n_held_out = n_test + max(1, round(validation * len(ranked)))
    return {
        name: "test" if rank < n_test else "validation" if rank < n_held_out else "train"
        for rank, name in enumerate(ranked)
    }
