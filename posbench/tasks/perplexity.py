"""What the four protocols of perplexity share: rows hold sums of nats and bytes, never a perplexity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.task import Measure, Task


class Perplexity(Task):
    """The loss of running text of the test split; documents are never crossed.

    Args:
        horizon: the longest context in tokens; every length of an experiment sees the same stretches of
            text, of one token more than this.
        examples: how many stretches, spread over the documents.
    """

    task = "perplexity"
    metric = "nll"
    unit = "nats"

    def __init__(self, horizon: int, examples: int) -> None:
        if horizon < 1 or examples < 1:
            raise ConfigError(
                f"{self.protocol}: horizon {horizon} and examples {examples} must be at least 1"
            )
        self.horizon, self.examples = horizon, examples

    def stretches(self, length: int, corpus: Corpus, seed: int) -> Iterator[tuple[str, int, np.ndarray]]:
        """(document, example, horizon + 1 ids): distinct stretches in a seeded order, as many as there are."""
        shard = corpus.split("test")
        if length > self.horizon:
            raise LengthError(
                f"{self.protocol} at {length} tokens: its horizon is {self.horizon}; raise horizon or choose a length up to it"
            )
        places = [
            (document, start)
            for document in shard.at_least(self.horizon + 1)
            for start in self.starts(int(shard.lengths[document]))
        ]
        if not places:
            raise LengthError(
                f"{self.protocol} to {self.horizon} tokens: the longest test document of {corpus.name} has "
                f"{shard.longest}; the longest possible length is {shard.longest - 1}"
            )
        order = np.random.default_rng(seed).permutation(len(places))[: self.examples]
        for example, place in enumerate(order):
            document, start = places[place]
            ids = shard.document(document)[start : start + self.horizon + 1]
            yield shard.names[document], example, ids.astype(np.int64)

    def starts(self, tokens: int) -> range:
        """Where the stretches of a document of so many tokens begin."""
        return range(0, tokens - self.horizon, self.horizon + 1)

    def prompt(self, corpus: Corpus, ids: np.ndarray, answer: int, document: str, example: int) -> Prompt:
        """All of `ids`, the last `answer` of them scored."""
        target_bytes = corpus.byte_lengths(ids[-answer:])
        facts = {"document": document, "example": example, "bytes": target_bytes}
        return Prompt(ids[:-answer], ids[None, -answer:], answer, facts)

    def measure(self, prompt: Prompt, scores: Scores) -> Iterator[Measure]:
        """The sum of nats of a prompt's targets and of their bytes."""
        document, example = prompt.facts["document"], prompt.facts["example"]
        count = prompt.answer
        yield Measure("nll", float(-scores.logprob.sum()), count, "nats", document, example)
        yield Measure("bytes", float(prompt.facts["bytes"].sum()), count, "bytes", document, example)
