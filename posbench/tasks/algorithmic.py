"""Algorithms on symbol sequences longer than those of training, such as copying and reversing.

Kazemnejad et al. The Impact of Positional Encoding on Length Generalization in Transformers. NeurIPS 2023,
sections 3 and 4. arXiv:2305.19466. In the mean of the paper's tasks, NoPE and T5's bias generalize to longer
sequences than ALiBi and rotation, unlike in perplexity. Deviation: answers are scored under teacher forcing; an exact match is what greedy
decoding would generate.
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
    """Exact match of the answer to a sequence of symbols.

    Prompts: bos, (`length` - 2) / 2 random symbols, a separator; the answer is what the rule derives from the symbols,
    and an end token. Where that is one symbol, such as a majority, prompts are shorter than `length`.

    Metrics, for each sequence:
        exact_match (fraction, 0 or 1): all symbols of the answer and its end token have the highest logit.
        symbol_accuracy (fraction, 0 to 1): symbols of the answer that have the highest logit.
        logprob (nats, at most 0): log-probability of a symbol of the answer.

    Args:
        rule: one of `data.algorithmic.RULES`; evaluated for models trained with the same `train.synthetic_task`.
        num_examples: number of sequences.
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
            yield self.prompt(index, count, length, corpus, seed)

    def prompt(self, index: int, count: int, length: int, corpus: Corpus, seed: int) -> Prompt:
        """Returns the prompt of a sequence with `count` symbols."""
        # The last entry separates these draws from those of training, so that no training sequence recurs.
        rng = np.random.default_rng([seed, length, index, 1])
        ids = algorithmic.example(rng, corpus.vocabulary, self.rule, count).astype(np.int64)
        split = count + 2
        return Prompt(ids[:split], ids[None, split:], len(ids) - split, {"example": index})

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        index, symbols = prompt.doc["example"], prompt.n_scored - 1
        correct = scores.greedy_ids[0] == prompt.continuations[0]
        name = f"sequence-{index}"
        yield MetricValue("exact_match", float(correct.all()), 1, "fraction", name, index)
        yield MetricValue("symbol_accuracy", float(correct[:-1].sum()), symbols, "fraction", name, index)
        yield MetricValue("logprob", float(scores.logprob[0, :-1].sum()), symbols, "nats", name, index)
