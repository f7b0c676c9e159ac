"""Perplexity of fixed targets: the same last tokens at every length, with more context.

The protocol for conclusions about length, since targets are equal. Su's length test
(https://kexue.fm/archives/9708, eval_loss.py of bojone/rerope) scores the last train_len tokens. Deviation: here the
last quarter of them, so that every target has most of its context even at the training length.
"""

from __future__ import annotations

from collections.abc import Iterator

from posbench.data.corpus import Corpus
from posbench.errors import LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt
from posbench.tasks.perplexity import Perplexity


@register("task/fixed_targets")
class FixedTargets(Perplexity):
    """Loss of the last train_len / 4 tokens of each segment.

    Prompts: the last `length` + 1 tokens of each segment, from train_len / 4 tokens on.
    Metrics and settings: see `Perplexity`.
    """

    protocol = "fixed_targets"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        targets = max(1, train_len // 4)
        if length < targets:
            raise LengthError(
                f"fixed_targets at {length} tokens: its {targets} targets (a quarter of the training length "
                f"{train_len}) need at least as many; choose a length of {targets} or more"
            )
        for doc_id, example, ids in self.segments(length, corpus, seed):
            yield self.prompt(corpus, ids[-length - 1 :], targets, doc_id, example)
