"""Key-value retrieval ("lost in the middle") on synthetic records, for models too small to read JSON.

Liu et al. Lost in the Middle. TACL 2024, section 4. arXiv:2307.03172. Keys and values are single reserved
ids; every record of a context is asked for, and all questions share one pass over it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data.associative_recall import context, questions
from posbench.data.corpus import Corpus
from posbench.errors import ConfigError
from posbench.subjects.subject import Prompt, Scores
from posbench.tasks.task import Measure, Task


class KeyValue(Task):
    """Exact match and log-probability of the value, by the record's place.

    Beside them, by context: `in_context`, the share of answers that are some value of the context; `chance`,
    one over the number of values; `context_guess`, the expected accuracy of naming the value of a record
    drawn at random.

    Args:
        contexts: how many contexts; each is asked for all of its records.
    """

    task = "key_value"
    protocol = "records"
    metric = "exact_match"
    unit = "share"
    gated = True

    def __init__(self, contexts: int) -> None:
        if contexts < 1:
            raise ConfigError(f"key_value with {contexts} contexts: give at least 1")
        self.contexts = contexts

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        tokens = corpus.split("test").tokens
        for index in range(self.contexts):
            rng = np.random.default_rng([seed, length, index])
            start = int(rng.integers(max(1, len(tokens) - length)))
            made = context(rng, corpus.vocabulary, tokens[start : start + length], length)
            facts = {"context": index, "values": made.value_ids, "choices": corpus.vocabulary.values}
            yield Prompt(made.ids.astype(np.int64), questions(made).astype(np.int64), 1, facts)

    def measure(self, prompt: Prompt, scores: Scores) -> Iterator[Measure]:
        values, index = prompt.facts["values"], prompt.facts["context"]
        name, count = f"context-{index}", len(values)
        top = scores.top[:, 0]
        for record in range(count):
            depth = record / max(1, count - 1)
            hit = float(top[record] == values[record])
            yield Measure("exact_match", hit, 1, "share", name, index, record, depth)
            yield Measure("logprob", float(scores.logprob[record, 0]), 1, "nats", name, index, record, depth)
        # Values are sums over the n questions, as in every row.
        in_context = float(np.isin(top, values).sum())
        _, repeats = np.unique(values, return_counts=True)
        yield Measure("in_context", in_context, count, "share", name, index)
        yield Measure("chance", count / prompt.facts["choices"], count, "share", name, index)
        yield Measure("context_guess", float((repeats**2).sum() / count), count, "share", name, index)
