"""Greedy generation with a cache, equal to reading everything again at every token.

The declared length is a prompt's own from its first token to its last, so that what follows it (dynamic
scalings) computes one model throughout. Sequences of different lengths are never padded to one shape: only
prompts of equal shapes share a pass, so there is no padding that a scheme could feel. Of equal logits the
lowest id is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Protocol

import numpy as np
from torch import Tensor

from posbench.lm.interface import Generated, Prompt
from posbench.model.gpt import GPT, KVCache


class CachedLM(Protocol):
    """The part of a language model that greedy decoding uses."""

    model: GPT

    def batch_size_for(self, prompt: Prompt) -> int:
        """Number of sequences as long as `prompt` that fit in one forward pass."""

    def prefill(self, prompt: Prompt) -> KVCache | None:
        """Cache of the context that the continuations of `prompt` share, or None."""

    def input_ids(self, prompt: Prompt, cache: KVCache | None) -> np.ndarray:
        """(N, T) ids of each continuation, after the part of the context that `cache` does not hold."""

    def forward(
        self, ids: np.ndarray, cache: KVCache | None, length: int, use_cache: bool = False
    ) -> tuple[Tensor, KVCache | None]:
        """(B, T, W) final hidden states of (B, T) ids, and the cache if `use_cache`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(.., W) hidden states to (.., V) float32 logits."""


class BatchDecoder:
    """Sequences of one length that are continued together.

    With a scheme whose cache is static each token is read once; with another everything is read again.

    Args:
        ids: (B, T) what has been read when it starts, as far as `cache` does not hold it.
        length: declared length in tokens of the whole sequences, those to come among them.
    """

    def __init__(self, lm: CachedLM, ids: np.ndarray, cache: KVCache | None, length: int) -> None:
        self.lm, self.length = lm, length
        self.ids, self.cache = ids, cache
        self.logits_BV = self._read(ids)

    def logprob(self) -> np.ndarray:
        """(B, V) float64 nats of the next id."""
        return self.logits_BV.double().log_softmax(-1).cpu().numpy()

    def greedy_ids(self) -> np.ndarray:
        """(B,) the most likely next ids."""
        return self.logits_BV.argmax(-1).cpu().numpy()

    def append(self, ids: np.ndarray) -> None:
        """Continue each sequence by one of (B,) ids."""
        if self.cache is not None:
            self.logits_BV = self._read(ids[:, None])
        else:
            self.ids = np.concatenate([self.ids, ids[:, None]], axis=1)
            self.logits_BV = self._read(self.ids)

    def _read(self, ids: np.ndarray) -> Tensor:
        use_cache = self.lm.model.scheme.traits.shared_prefill
        hidden, self.cache = self.lm.forward(ids, self.cache, self.length, use_cache)
        return self.lm.logits(hidden[:, -1])


def generate(lm: CachedLM, prompts: Iterable[Prompt]) -> Iterator[Generated]:
    """What greedy decoding appends to each continuation of each prompt, in order.

    The continuations of a prompt share one pass over their context where the scheme allows it; prompts of one
    continuation and one shape that follow each other are read together.
    """
    for _, alike in groupby(prompts, key=lambda p: (len(p.context), p.continuations.shape, p.max_new_tokens)):
        waiting: list[Prompt] = []
        for prompt in alike:
            if len(prompt.continuations) > 1:
                yield questions(lm, prompt)
                continue
            waiting.append(prompt)
            if len(waiting) == lm.batch_size_for(prompt):
                yield from together(lm, waiting)
                waiting = []
        if waiting:
            yield from together(lm, waiting)


def questions(lm: CachedLM, prompt: Prompt) -> Generated:
    """All continuations of a prompt."""
    cache = lm.prefill(prompt)
    ids, batch = lm.input_ids(prompt, cache), lm.batch_size_for(prompt)
    parts = [
        greedy(BatchDecoder(lm, ids[start : start + batch], cache, prompt.length), prompt.max_new_tokens)
        for start in range(0, len(ids), batch)
    ]
    return Generated(np.concatenate(parts))


def together(lm: CachedLM, prompts: list[Prompt]) -> Iterator[Generated]:
    """Prompts of one shape with one continuation each."""
    ids = np.concatenate([lm.input_ids(prompt, None) for prompt in prompts])
    new = greedy(BatchDecoder(lm, ids, None, prompts[0].length), prompts[0].max_new_tokens)
    for row in range(len(prompts)):
        yield Generated(new[row : row + 1])


def greedy(decoder: BatchDecoder, max_new_tokens: int) -> np.ndarray:
    """(B, max_new_tokens) ids; the last is only predicted, never read."""
    found = [decoder.greedy_ids()]
    for _ in range(max_new_tokens - 1):
        decoder.append(found[-1])
        found.append(decoder.greedy_ids())
    return np.stack(found, axis=1)
