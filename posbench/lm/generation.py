"""Greedy decoding with a KV cache, equal to reading the whole sequence again for every token.

The declared length is constant throughout: the prompt's length with all generated tokens, so that extensions that
depend on the length (dynamic scaling) stay one model. Ties between logits go to the lowest id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from posbench.lm.batching import run_batches
from posbench.lm.interface import Generated, Prompt
from posbench.model.gpt import GPT, KVCache


def check_numbers(logits: Tensor) -> None:
    """Raises FloatingPointError if a logit or a log-probability is not a number."""
    if logits.isnan().any():
        raise FloatingPointError("a logit is not a number")


class CachedLM(Protocol):
    """The part of a language model that greedy decoding uses."""

    model: GPT

    def batch_size_for(self, prompt: Prompt) -> int:
        """Number of sequences of the prompt's length that fit in one forward pass."""

    def prefill(self, prompt: Prompt) -> KVCache | None:
        """Cache of all but the last token of the context, or None if it cannot be reused."""

    def forward(
        self, ids: np.ndarray, cache: KVCache | None, length: int, use_cache: bool = False
    ) -> tuple[Tensor, KVCache | None]:
        """(B, T, W) final hidden states of (B, T) ids, and the cache if `use_cache`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(.., W) hidden states to (.., V) float32 logits."""


class BatchDecoder:
    """Decoding of a batch of sequences of one length in parallel.

    Each token is read once if the scheme's cache can be reused (`Traits.shared_prefill`); otherwise the whole
    sequences are read again for every token.

    Args:
        ids: (B, T) ids to begin with, after those that `cache` holds.
        length: declared length in tokens of the whole sequences, tokens still to be generated included.
    """

    def __init__(self, lm: CachedLM, ids: np.ndarray, cache: KVCache | None, length: int) -> None:
        self.lm, self.length = lm, length
        self.ids, self.cache = ids, cache
        self.logits_BV = self._read(ids)

    def logprob(self) -> np.ndarray:
        """(B, V) float64 nats of the next id."""
        return self.logits_BV.double().log_softmax(-1).cpu().numpy()

    def greedy_ids(self) -> np.ndarray:
        """(B,) int64 most likely next ids."""
        return self.logits_BV.argmax(-1).cpu().numpy()

    def append(self, ids: np.ndarray) -> None:
        """Appends one id to each sequence; `ids` is (B,)."""
        if self.cache is not None:
            self.logits_BV = self._read(ids[:, None])
        else:
            self.ids = np.concatenate([self.ids, ids[:, None]], axis=1)
            self.logits_BV = self._read(self.ids)

    def _read(self, ids: np.ndarray) -> Tensor:
        use_cache = self.lm.model.scheme.traits.shared_prefill
        hidden, self.cache = self.lm.forward(ids, self.cache, self.length, use_cache)
        logits_BV = self.lm.logits(hidden[:, -1])
        check_numbers(logits_BV)  # the largest of them would be one of the ids
        return logits_BV


def generate(lm: CachedLM, prompts: Iterable[Prompt]) -> Iterator[Generated]:
    """Generates `max_new_tokens` ids greedily after each continuation of each prompt, in order."""

    def decode(ids: np.ndarray, cache: KVCache | None, prompt: Prompt) -> tuple[Tensor]:
        decoder = BatchDecoder(lm, ids, cache, prompt.length)
        generated = [decoder.greedy_ids()]
        for _ in range(prompt.max_new_tokens - 1):
            decoder.append(generated[-1])
            generated.append(decoder.greedy_ids())
        return (torch.from_numpy(np.stack(generated, axis=1)),)

    for _, (ids,) in run_batches(prompts, decode, batch_size=lm.batch_size_for, prefill=lm.prefill):
        yield Generated(ids.numpy())
