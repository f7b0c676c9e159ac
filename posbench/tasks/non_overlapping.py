"""Non-overlapping windows, the protocol of the papers' tables.

It falls with length for any robust scheme, because fewer targets stand at the start of a window (the
early-token curse): Press et al., arXiv:2108.12409, appendix B.
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
    """Stretches cut into windows of `length` read tokens, every target scored once, the same at every length."""

    protocol = "non_overlapping"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        if self.max_context % length:
            raise LengthError(
                f"non_overlapping at {length} tokens: windows must divide the max_context {self.max_context}, or the "
                "targets would differ between lengths; choose a divisor"
            )
        for doc_id, example, ids in self.segments(length, corpus, seed):
            for start in range(0, self.max_context, length):
                yield self.prompt(corpus, ids[start : start + length + 1], length, doc_id, example)
