"""Sliding windows with a stride, the protocol of Position Interpolation and YaRN (stride 256).

Every target has at least length - stride tokens of context, but for the first window's.
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
    """Windows of `length` read tokens moved by `stride`; each scores the targets that no earlier one has."""

    protocol = "sliding"

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
        for doc_id, example, ids in self.segments(length, corpus, seed):
            yield self.prompt(corpus, ids[: length + 1], length, doc_id, example)
            for scored in range(length, self.max_context, self.stride):
                stop = min(scored + self.stride, self.max_context)
                yield self.prompt(corpus, ids[stop - length : stop + 1], stop - scored, doc_id, example)
