"""Perplexity on sliding windows with a stride, where targets have a long context.

The windows of Position Interpolation (arXiv:2306.15595) and YaRN (arXiv:2309.00071), with a stride of 256 tokens. Every
target has at least `length` - stride tokens of context, except in the first window of a segment, which is a share of
length / max_context of the targets. Deviation: losses are weighted by targets; YaRN's code takes the mean over windows, in
which the first one counts as much as one of 256 targets.
"""

from __future__ import annotations

from collections.abc import Iterator

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.lm.interface import Prompt
from posbench.tasks.perplexity import Perplexity


@register("task/sliding")
class Sliding(Perplexity):
    """Loss of all tokens of each segment but its first.

    Prompts: windows of `length` tokens, each `stride` tokens after the one before; a window scores the targets that no
    earlier window has scored.
    Metrics: see `Perplexity`.

    Args:
        max_context, num_examples: see `Perplexity`; max_context is at least twice the longest length.
        stride: tokens between windows, 1 to `length`.
    """

    protocol = "sliding"
    max_context_multiple = 4  # of the longest evaluated length, for max_context "auto"

    def __init__(self, max_context: int, num_examples: int, stride: int) -> None:
        super().__init__(max_context, num_examples)
        if stride < 1:
            raise ConfigError(f"sliding with stride {stride}: give at least 1 token")
        self.stride, self.variant = stride, f"stride={stride}"

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        if self.stride > length:
            raise LengthError(
                f"sliding at {length} tokens with stride {self.stride} would skip targets: choose a stride up to {length}"
            )
        if self.max_context < 2 * length:
            raise LengthError(
                f"sliding at {length} tokens with max_context {self.max_context}: half of the targets or more are in the first "
                f"window of a segment; give max_context={2 * length} or more"
            )
        for doc_id, example, ids in self.segments(length, corpus, seed):
            yield self.prompt(corpus, ids[: length + 1], length, doc_id, example)
            for scored in range(length, self.max_context, self.stride):
                stop = min(scored + self.stride, self.max_context)
                yield self.prompt(corpus, ids[stop - length : stop + 1], stop - scored, doc_id, example)
