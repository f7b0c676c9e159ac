"""Contexts of synthetic records: the same ones for every task that asks about them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.associative_recall import RecallContext, make_context
from posbench.data.corpus import Corpus


def recall_contexts(corpus: Corpus, count: int, length: int, seed: int) -> Iterator[RecallContext]:
    """`count` contexts behind running text of the test split, each a function of (seed, length, its index)."""
    tokens = corpus.split("test").tokens
    for index in range(count):
        rng = np.random.default_rng([seed, length, index])
        start = int(rng.integers(max(1, len(tokens) - length)))
        yield make_context(rng, corpus.vocabulary, tokens[start : start + length], length)
