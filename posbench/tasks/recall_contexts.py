"""Contexts of synthetic records, shared by all tasks on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.associative_recall import RecallContext, make_context
from posbench.data.corpus import Corpus
from posbench.tasks.prompting import evaluated_window


def recall_contexts(corpus: Corpus, count: int, length: int, seed: int) -> Iterator[RecallContext]:
    """Yields `count` contexts of running test text followed by records; each depends on (seed, length, index) alone."""
    for index in range(count):
        rng = np.random.default_rng([seed, length, index])
        text = evaluated_window(corpus, rng, length)
        yield make_context(rng, corpus.vocabulary, text, length)
