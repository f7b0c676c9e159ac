"""Multi-query associative recall (MQAR), past the lengths of training.

Arora, Eyuboglu, et al. Zoology. ICLR 2024. arXiv:2312.04927; the sequences are those of `data.mqar`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from posbench.data import mqar
from posbench.data.corpus import Corpus
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError, unknown
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.prompting import evaluated_window, require_positive
from posbench.tasks.task import MetricValue, Task


@register("task/mqar")
class MQAR(Task):
    """Exact match of the value of each queried key.

    Prompts: a sequence of `data.mqar`, all of whose queries are read in one pass; no value follows its query.

    Metrics, for each query; `position` is its index in the sequence, `depth` the place of its pair among the pairs (0 first, 1
    last):
        exact_match (fraction, 0 or 1): the value has the highest logit.
    Metrics, for each sequence, averaged over queries:
        predicted_in_context (fraction, 0 to 1): predictions that are some value of the sequence.
        chance (fraction, 0 to 1): accuracy of a value drawn at random from all values of the vocabulary.
        random_in_context (fraction, 0 to 1): accuracy of a value drawn at random from those of the sequence.

    Args:
        num_examples: number of sequences.
        layout: "mqar", Zoology's, or "mqar_spread", pairs and queries spread through running text; evaluated for models
            trained with the same `train.synthetic_task`.
        num_pairs: pairs of a sequence at every length; null: one for every 16 tokens, as in training.
    """

    task = "mqar"
    protocol = "synthetic_records"
    version = 3
    metric = "exact_match"
    unit = "fraction"

    def __init__(self, num_examples: int, layout: str, num_pairs: int | None = None) -> None:
        if layout not in mqar.LAYOUTS:
            raise unknown("layout of mqar", layout, mqar.LAYOUTS)
        require_positive("mqar", num_examples=num_examples)
        if num_pairs is not None and num_pairs < 1:
            raise ConfigError(f"mqar with num_pairs={num_pairs}: give at least 1, or null")
        self.num_examples, self.num_pairs = num_examples, num_pairs
        self.layout = self.required_synthetic_task = layout
        pairs = f"num_pairs={num_pairs}" if num_pairs else ""
        self.variant = "-".join(name for name in (layout.removeprefix("mqar").strip("_"), pairs) if name)

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        vocabulary = corpus.vocabulary
        count = mqar.num_pairs(length, vocabulary.num_keys, vocabulary.num_values, self.num_pairs or 0)
        for index in range(self.num_examples):
            # The last entry separates these draws from those of training, so that no training sequence recurs.
            rng = np.random.default_rng([seed, length, index, 1])
            text = evaluated_window(corpus, rng, length)
            made = mqar.sequence(rng, vocabulary, self.layout, length, count, text)
            yield self.prompt(made, index, vocabulary)

    def prompt(self, made: mqar.MqarSequence, index: int, vocabulary: Vocabulary) -> Prompt:
        """Returns the prompt of a sequence."""
        doc = {"example": index, "sequence": made, "vocabulary": vocabulary}
        # The last id is only predicted, and its prediction counts only where a query is the last token read.
        ids = np.append(made.ids, vocabulary.bos)
        return Prompt(ids[:1], ids[None, 1:], len(made.ids), doc)

    def begin_with(self, prompt: Prompt, bos: int) -> Prompt:
        """Puts the bos before the sequence, whose first id can be a key, and drops its last id, which never counts."""
        made, index, vocabulary = (prompt.doc[name] for name in ("sequence", "example", "vocabulary"))
        ids = np.concatenate([[bos], made.ids[:-1]])
        return self.prompt(
            replace(made, ids=ids, queries=made.queries + 1, pairs=made.pairs + 1), index, vocabulary
        )

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        index, made = prompt.doc["example"], prompt.doc["sequence"]
        name, count = f"sequence-{index}", len(made.values)
        predicted = scores.greedy_ids[0][made.queries]
        depths = np.linspace(0, 1, count)  # pairs are in the order of their keys in the sequence
        for query, depth, right in zip(made.queries, depths, predicted == made.values, strict=True):
            location = (name, index, int(query), float(depth))
            yield MetricValue("exact_match", float(right), 1, "fraction", *location)
        in_context = float(np.isin(predicted, made.values).sum())
        yield MetricValue("predicted_in_context", in_context, count, "fraction", name, index)
        yield MetricValue(
            "chance", count / prompt.doc["vocabulary"].num_values, count, "fraction", name, index
        )
        yield MetricValue("random_in_context", 1.0, count, "fraction", name, index)
