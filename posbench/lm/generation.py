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
from posbench.model.gpt import Cache
from posbench.position.scheme import PositionScheme


class CachedLM(Protocol):
    """The part of a language model that greedy decoding uses."""

    scheme: PositionScheme

    def at_once(self, prompt: Prompt) -> int:
        """Number of sequences as long as `prompt` that fit in one forward pass."""

    def prefill(self, prompt: Prompt) -> Cache | None:
        """Cache of the context that the suffixes of `prompt` share, or None."""

    def rows(self, prompt: Prompt, cache: Cache | None) -> np.ndarray:
        """(N, T) ids of each suffix, after the part of the context that `cache` does not hold."""

    def forward(
        self, ids: np.ndarray, cache: Cache | None, length: int, keep: bool = False
    ) -> tuple[Tensor, Cache | None]:
        """(B, T, W) final hidden states of (B, T) ids, and the cache if `keep`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(.., W) hidden states to (.., V) float32 logits."""


class Decoder:
    """Sequences of one length that are continued together.

    With a scheme whose cache is static each token is read once; with another everything is read again.

    Args:
        ids: (B, T) what has been read when it starts, as far as `cache` does not hold it.
        length: declared length in tokens of the whole sequences, those to come among them.
    """

    def __init__(self, subject: CachedLM, ids: np.ndarray, cache: Cache | None, length: int) -> None:
        self.subject, self.length = subject, length
        self.ids, self.cache = ids, cache
        self.logits_BV = self._read(ids)

    def logprob(self) -> np.ndarray:
        """(B, V) float64 nats of the next id."""
        return self.logits_BV.double().log_softmax(-1).cpu().numpy()

    def top(self) -> np.ndarray:
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
        keep = self.subject.scheme.traits.shared_prefill
        hidden, self.cache = self.subject.forward(ids, self.cache, self.length, keep)
        return self.subject.logits(hidden[:, -1])


def generate(subject: CachedLM, prompts: Iterable[Prompt]) -> Iterator[Generated]:
    """What greedy decoding appends to each suffix of each prompt, in order.

    The suffixes of a prompt share one pass over their context where the scheme allows it; prompts of one
    suffix and one shape that follow each other are read together.
    """
    for _, alike in groupby(prompts, key=lambda p: (len(p.context), p.suffixes.shape, p.new)):
        waiting: list[Prompt] = []
        for prompt in alike:
            if len(prompt.suffixes) > 1:
                yield questions(subject, prompt)
                continue
            waiting.append(prompt)
            if len(waiting) == subject.at_once(prompt):
                yield from together(subject, waiting)
                waiting = []
        if waiting:
            yield from together(subject, waiting)


def questions(subject: CachedLM, prompt: Prompt) -> Generated:
    """All suffixes of a prompt."""
    cache = subject.prefill(prompt)
    ids, batch = subject.rows(prompt, cache), subject.at_once(prompt)
    parts = [
        greedy(Decoder(subject, ids[start : start + batch], cache, prompt.length), prompt.new)
        for start in range(0, len(ids), batch)
    ]
    return Generated(np.concatenate(parts))


def together(subject: CachedLM, prompts: list[Prompt]) -> Iterator[Generated]:
    """Prompts of one shape with one suffix each."""
    ids = np.concatenate([subject.rows(prompt, None) for prompt in prompts])
    new = greedy(Decoder(subject, ids, None, prompts[0].length), prompts[0].new)
    for row in range(len(prompts)):
        yield Generated(new[row : row + 1])


def greedy(decoder: Decoder, new: int) -> np.ndarray:
    """(B, new) ids; the last is only predicted, never read."""
    found = [decoder.top()]
    for _ in range(new - 1):
        decoder.append(found[-1])
        found.append(decoder.top())
    return np.stack(found, axis=1)
