"""Length generalization by ranges of lengths: exact match of algorithmic answers to inputs longer than in training.

Huang et al. A Formal Framework for Understanding Length Generalization in Transformers. ICLR 2025, section 5.
arXiv:2410.02140. As in the paper, a score is the share of sequences whose whole answer and end have the highest logit
under teacher forcing, over inputs whose number of symbols is uniform in a range.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posbench.data import algorithmic
from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt
from posbench.tasks.algorithmic import Algorithmic


@register("task/length_generalization")
class LengthGeneralization(Algorithmic):
    """Exact match of the answer to sequences of symbols, by range of their number.

    Prompts: as of `algorithmic`. Lengths follow from the ranges: that of a range is 2 n + 2 tokens for its largest number
    n of symbols, the tokens of a copy, under every rule. Prompts have at most that many tokens.

    Metrics: those of `algorithmic`.

    Args:
        rule: one of `data.algorithmic.RULES`; evaluated for models trained with the same `train.synthetic_task`.
        num_examples: number of sequences of a range; 2000 in the paper.
        ranges: smallest and largest number of symbols of each range. A range of the training's length is the first.
    """

    task = "length_generalization"

    def __init__(self, rule: str, num_examples: int, ranges: list[list[int]]) -> None:
        super().__init__(rule, num_examples)
        for one in ranges:
            if len(one) != 2 or not 0 <= one[0] <= one[1] or one[1] < 1:
                raise ConfigError(
                    f"length_generalization with a range {one}: give the smallest and the largest number of symbols, such as [51, 100]"
                )
        self.by_length = {2 * most + 2: (least, most) for least, most in ranges}
        if not ranges or len(self.by_length) < len(ranges):
            raise ConfigError(
                f"length_generalization with ranges {ranges}: give one or more, which end at different numbers of symbols"
            )

    def fixed_lengths(self, corpus: Corpus) -> list[int]:
        return list(self.by_length)

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        if length not in self.by_length:
            lengths = ", ".join(map(str, self.by_length))
            raise LengthError(
                f"length_generalization at {length} tokens: its ranges take {lengths}; choose ranges, and lengths follow"
            )
        least, most = self.by_length[length]
        rng = np.random.default_rng([seed, length, 2])
        least = max(least, algorithmic.min_symbols(self.rule))
        # In order, because sequences of one length share a batch.
        counts = np.sort(rng.integers(least, most + 1, size=self.num_examples))
        for index, count in enumerate(counts.tolist()):
            yield self.prompt(index, count, length, corpus, seed)
