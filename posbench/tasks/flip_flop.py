"""Flip-flop language: does a model repeat the bit that was written last, however many others it ignores in between?

Liu et al. Exposing Attention Glitches with Flip-Flop Language Modeling. NeurIPS 2023. arXiv:2306.00946; the sequences
are those of `data.flip_flop`. Models are trained with 0.8 of the instructions ignored; the paper evaluates at 0.8, at
0.98 (far writes) and at 0.1 (many writes and reads).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data import flip_flop
from posbench.data.corpus import Corpus
from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.lm.interface import Prompt, Scores
from posbench.tasks.prompting import require_positive
from posbench.tasks.task import MetricValue, Task


@register("task/flip_flop")
class FlipFlop(Task):
    """Accuracy of the bits after reads.

    Prompts: bos and `length` / 2 pairs of an instruction and a bit.

    Metrics, for each sequence:
        symbol_accuracy (fraction, 0 to 1): reads whose bit has the highest logit; 1 minus the paper's glitch rate.
        exact_match (fraction, 0 or 1): all reads of the sequence are right.
        logprob (nats, at most 0): log-probability of a bit after a read.
        chance (fraction, 0 to 1): accuracy of a random bit at a single read, 1/2.

    Args:
        num_examples: number of sequences.
        ignore: share of ignored instructions.
    """

    task = "flip_flop"
    protocol = "teacher_forced"
    metric = "symbol_accuracy"
    unit = "fraction"
    required_synthetic_task = "flip_flop"

    def __init__(self, num_examples: int, ignore: float) -> None:
        require_positive("flip_flop", num_examples=num_examples)
        if not 0 <= ignore <= 1:
            raise ConfigError(f"flip_flop with ignore={ignore}: give a share from 0 to 1")
        self.num_examples, self.ignore = num_examples, ignore
        self.variant = f"ignore={ignore:g}"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        flip_flop.check_length(length, corpus.vocabulary.num_keys)
        for index in range(self.num_examples):
            # The last entry separates these draws from those of training, so that no training sequence recurs.
            rng = np.random.default_rng([seed, length, index, 1])
            ids, reads = flip_flop.sequence(rng, corpus.vocabulary, length, self.ignore)
            yield Prompt(ids[:1], ids[None, 1:], length, {"example": index, "reads": reads[1:]})

    def process_results(self, prompt: Prompt, scores: Scores) -> Iterator[MetricValue]:
        index, reads = prompt.doc["example"], prompt.doc["reads"]
        right = (scores.greedy_ids[0] == prompt.continuations[0])[reads]
        name, count = f"sequence-{index}", len(right)
        yield MetricValue("symbol_accuracy", float(right.sum()), count, "fraction", name, index)
        yield MetricValue("exact_match", float(right.all()), 1, "fraction", name, index)
        yield MetricValue("logprob", float(scores.logprob[0][reads].sum()), count, "nats", name, index)
        yield MetricValue("chance", count / 2, count, "fraction", name, index)
