"""Batches of prompts: equal shapes share a forward pass, continuations of one context share its prefill.

Sequences of different lengths are never padded to one shape, so no position scheme receives padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from posbench.lm.interface import Prompt

Cache = TypeVar("Cache")


def run_batches(
    prompts: Iterable[Prompt],
    forward: Callable[[np.ndarray, Cache | None, Prompt], tuple[Tensor, ...]],
    *,
    batch_size: Callable[[Prompt], int],
    prefill: Callable[[Prompt], Cache | None],
    key: Callable[[Prompt], tuple] | None = None,
) -> Iterator[tuple[Prompt, tuple[Tensor, ...]]]:
    """Runs `forward` on all continuations of all prompts; yields each prompt with its (N, ..) results, in order.

    Consecutive prompts of one shape with a single continuation each are batched together. The continuations of any
    other prompt are batched among themselves, after one prefill of their context.

    Args:
        forward: maps (B, T) ids, the cache of the ids before them or None, and a prompt of the batch's shape to
            tensors whose first dimension is B.
        batch_size: the largest B for a prompt's shape, at least 1.
        prefill: caches all but the last id of a prompt's context, or returns None if a cache cannot be reused; called
            for prompts with several continuations.
        key: equal for prompts that may share a batch; by default `shape`.
    """
    key = key or shape
    for _, group in groupby(prompts, key=key):
        same_shape = list(group)
        size = batch_size(same_shape[0])
        if len(same_shape[0].continuations) > 1:
            for prompt in same_shape:
                cache = prefill(prompt)
                ids = input_ids(prompt, cache)
                parts = [
                    forward(ids[start : start + size], cache, prompt) for start in range(0, len(ids), size)
                ]
                yield prompt, tuple(torch.cat(part) for part in zip(*parts, strict=True))
            continue
        for start in range(0, len(same_shape), size):
            batch = same_shape[start : start + size]
            ids = np.concatenate([input_ids(prompt) for prompt in batch])
            results = forward(ids, None, batch[0])
            for row, prompt in enumerate(batch):
                yield prompt, tuple(result[row : row + 1] for result in results)


def input_ids(prompt: Prompt, cache: object = None) -> np.ndarray:
    """(N, T) int64 ids of each continuation, after the whole context or, given a cache, after its last id alone.

    The last id of the context is never cached, since it predicts the first id of the continuation.
    """
    context = prompt.context if cache is None else prompt.context[-1:]
    tiled = np.broadcast_to(context, (len(prompt.continuations), len(context)))
    return np.concatenate([tiled, prompt.continuations], axis=1).astype(np.int64)


def shape(prompt: Prompt) -> tuple:
    """The properties that prompts of one batch have in common."""
    return (
        len(prompt.context),
        prompt.continuations.shape,
        prompt.n_scored,
        prompt.max_new_tokens,
        prompt.candidate_ids is None,
    )
