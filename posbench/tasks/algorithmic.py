"""Copy and reverse, learned up to a length and asked for longer sequences.

Kazemnejad et al. The Impact of Positional Encoding on Length Generalization in Transformers. NeurIPS 2023,
sections 3 and 4. arXiv:2305.19466. There no position scheme and T5's bias go further than ALiBi and rotation:
the opposite of what perplexity says. Deviation: under teacher forcing; the whole answer is exact where greedy
decoding would have been.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data import algorithmic
from posbench.data.corpus import Corpus
from posbench.errors import unknown
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.prompting import require_positive
from posbench.tasks.task import MetricValue, Task


@register("task/algorithmic")
class Algorithmic(Task):
    """A sequence read as `length` tokens, (length - 2) / 2 symbols and their copy or reverse.

    Measures, by sequence: `exact_match`, whether every symbol of the answer and its end are the first choice;
    `symbol_accuracy`, the share of the symbols that are; `logprob`, nats of the symbols.

    Args:
        rule: copy or reverse; only models that were trained on it are asked.
        num_examples: how many sequences.
    """

    task = "algorithmic"
    protocol = "teacher_forced"
    metric = "exact_match"
    unit = "fraction"

    def __init__(self, rule: str, num_examples: int) -> None:
        if rule not in algorithmic.RULES:
            raise unknown("rule of algorithmic", rule, algorithmic.RULES)
        require_positive("algorithmic", num_examples=num_examples)
        self.rule, self.num_examples = rule, num_examples
        self.variant = self.required_synthetic_task = rule

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        count = algorithmic.num_symbols(length)
        for index in range(self.num_examples):
            # A stream of its own, so that no sequence is one of the training's.
            rng = np.random.default_rng([seed, length, index, 1])
            ids = algorithmic.example(rng, corpus.vocabulary, self.rule, count).astype(np.int64)
            split = count + 2
            yield Prompt(ids[:split], ids[None, split:], count + 1, {"example": index})

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        index, symbols = prompt.doc["example"], prompt.n_scored - 1
        hits = scores.greedy_ids[0] == prompt.continuations[0]
        name = f"sequence-{index}"
        yield MetricValue("exact_match", float(hits.all()), 1, "fraction", name, index)
        yield MetricValue("symbol_accuracy", float(hits[:-1].sum()), symbols, "fraction", name, index)
        yield MetricValue("logprob", float(scores.logprob[0, :-1].sum()), symbols, "nats", name, index)
