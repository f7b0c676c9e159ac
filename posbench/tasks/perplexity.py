"""Base class of the perplexity protocols: loss on test documents, as sums of nats and bytes.

Perplexity and bits per byte are computed from these sums in the report.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.task import MetricValue, Task


class Perplexity(Task):
    """Loss on segments of test documents; no segment crosses a document boundary.

    Metrics, for each prompt:
        nll (nats, at least 0): negative log-likelihood of a target.
        bytes (bytes, at least 0): length of a target's text.

    Args:
        max_context: longest context in tokens. Every length of an experiment uses the same segments, each of
            max_context + 1 tokens.
        num_examples: largest number of segments, drawn at random from all documents.
    """

    task = "perplexity"
    metric = "nll"
    unit = "nats"

    def __init__(self, max_context: int, num_examples: int) -> None:
        if max_context < 1 or num_examples < 1:
            raise ConfigError(
                f"{self.protocol}: max_context {max_context} and num_examples {num_examples} must be at least 1"
            )
        self.max_context, self.num_examples = max_context, num_examples

    def segments(self, length: int, corpus: Corpus, seed: int) -> Iterator[tuple[str, int, np.ndarray]]:
        """Yields (doc_id, example, ids) of distinct segments in a seeded order; ids are (max_context + 1,) int64.

        Raises:
            LengthError: if `length` exceeds max_context, or max_context every test document.
        """
        shard = corpus.evaluated
        if length > self.max_context:
            raise LengthError(
                f"{self.protocol} at {length} tokens: its max_context is {self.max_context}; raise max_context or choose a length up to it"
            )
        candidates = [
            (document, start)
            for document in shard.at_least(self.max_context + 1)
            for start in self.starts(int(shard.lengths[document]))
        ]
        if not candidates:
            raise LengthError(
                f"{self.protocol} to {self.max_context} tokens: the longest {corpus.evaluated_split} document of {corpus.name} has "
                f"{shard.longest}; the longest possible length is {shard.longest - 1}"
            )
        order = np.random.default_rng(seed).permutation(len(candidates))[: self.num_examples]
        for example, index in enumerate(order):
            document, start = candidates[index]
            ids = shard.document(document)[start : start + self.max_context + 1]
            yield shard.names[document], example, ids.astype(np.int64)

    def starts(self, tokens: int) -> range:
        """Returns the first indices of the segments in a document of `tokens` tokens."""
        return range(0, tokens - self.max_context, self.max_context + 1)

    def prompt(self, corpus: Corpus, ids: np.ndarray, n_scored: int, doc_id: str, example: int) -> Prompt:
        """Makes a prompt of all `ids` that scores the last `n_scored` of them."""
        target_bytes = corpus.byte_lengths(ids[-n_scored:])
        doc = {"doc_id": doc_id, "example": example, "bytes": target_bytes}
        return Prompt(ids[:-n_scored], ids[None, -n_scored:], n_scored, doc)

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        doc_id, example = prompt.doc["doc_id"], prompt.doc["example"]
        count = prompt.n_scored
        yield MetricValue("nll", float(-scores.logprob.sum()), count, "nats", doc_id, example)
        yield MetricValue("bytes", float(prompt.doc["bytes"].sum()), count, "bytes", doc_id, example)
