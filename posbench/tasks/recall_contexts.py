"""Contexts of synthetic records, shared by all tasks on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.associative_recall import RecallContext, make_context
from posbench.data.corpus import Corpus


def recall_contexts(corpus: Corpus, count: int, length: int, seed: int) -> Iterator[RecallContext]:
    """Yields `count` contexts of running test text followed by records; each depends on (seed, length, index) alone."""
    tokens = corpus.split("test").tokens
    for index in range(count):
        rng = np.random.default_rng([seed, length, index])
        start = int(rng.integers(max(1, len(tokens) - length)))
        yield make_context(rng, corpus.vocabulary, tokens[start : start + length], length)
