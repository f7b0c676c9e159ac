"""What the four protocols of perplexity share: rows hold sums of nats and bytes, never a perplexity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.task import MetricValue, Task


class Perplexity(Task):
    """The loss of running text of the test split; documents are never crossed.

    Args:
        max_context: the longest context in tokens; every length of an experiment sees the same stretches of
            text, of one token more than this.
        num_examples: how many stretches, spread over the documents.
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
        """(doc_id, example, max_context + 1 ids): distinct stretches in a seeded order, as many as there are."""
        shard = corpus.split("test")
        if length > self.max_context:
            raise LengthError(
                f"{self.protocol} at {length} tokens: its max_context is {self.max_context}; raise max_context or choose a length up to it"
            )
        places = [
            (document, start)
            for document in shard.at_least(self.max_context + 1)
            for start in self.starts(int(shard.lengths[document]))
        ]
        if not places:
            raise LengthError(
                f"{self.protocol} to {self.max_context} tokens: the longest test document of {corpus.name} has "
                f"{shard.longest}; the longest possible length is {shard.longest - 1}"
            )
        order = np.random.default_rng(seed).permutation(len(places))[: self.num_examples]
        for example, place in enumerate(order):
            document, start = places[place]
            ids = shard.document(document)[start : start + self.max_context + 1]
            yield shard.names[document], example, ids.astype(np.int64)

    def starts(self, tokens: int) -> range:
        """Where the stretches of a document of so many tokens begin."""
        return range(0, tokens - self.max_context, self.max_context + 1)

    def prompt(self, corpus: Corpus, ids: np.ndarray, n_scored: int, doc_id: str, example: int) -> Prompt:
        """All of `ids`, the last `n_scored` of them scored."""
        target_bytes = corpus.byte_lengths(ids[-n_scored:])
        doc = {"doc_id": doc_id, "example": example, "bytes": target_bytes}
        return Prompt(ids[:-n_scored], ids[None, -n_scored:], n_scored, doc)

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        """The sum of nats of a prompt's targets and of their bytes."""
        doc_id, example = prompt.doc["doc_id"], prompt.doc["example"]
        count = prompt.n_scored
        yield MetricValue("nll", float(-scores.logprob.sum()), count, "nats", doc_id, example)
        yield MetricValue("bytes", float(prompt.doc["bytes"].sum()), count, "bytes", doc_id, example)
