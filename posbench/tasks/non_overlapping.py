"""Perplexity on non-overlapping windows, the protocol of most papers' tables.

Press et al. Train Short, Test Long. ICLR 2022, appendix B. arXiv:2108.12409. The loss of any robust scheme falls with
length here, since fewer targets are at the start of a window (the early token curse).
"""

from __future__ import annotations

from collections.abc import Iterator

from posbench.data.corpus import Corpus
from posbench.errors import LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt
from posbench.tasks.perplexity import Perplexity


@register("task/non_overlapping")
class NonOverlapping(Perplexity):
    """Loss of all tokens of each segment but its first.

    Prompts: windows of `length` tokens that cover a segment, each target scored once; `length` divides max_context, so
    that all lengths have the same targets.
    Metrics and settings: see `Perplexity`.
    """

    protocol = "non_overlapping"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        if self.max_context % length:
            raise LengthError(
                f"non_overlapping at {length} tokens: a window must divide the max_context {self.max_context}, or the "
                "targets would differ between lengths; choose a divisor"
            )
        for doc_id, example, ids in self.segments(length, corpus, seed):
            for start in range(0, self.max_context, length):
                yield self.prompt(corpus, ids[start : start + length + 1], length, doc_id, example)
