"""Batches of prompts: equal shapes share a forward pass, continuations of one context share its prefill.

Sequences of different lengths are never padded to one shape, so no position scheme ever sees padding.
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
) -> Iterator[tuple[Prompt, tuple[Tensor, ...]]]:
    """Runs `forward` on all continuations of all prompts; yields each prompt with its results, in order.

    Consecutive prompts of one shape and one continuation each are batched together. The continuations of any other
    prompt are batched among themselves, after one prefill of their context.

    Args:
        forward: maps ids (B, T), their cached prefix if any, and a prompt of the batch's shape to tensors whose first
            dimension is B.
        batch_size: the largest B for a prompt's shape.
        prefill: caches all but the last id of a prompt's context (see `input_ids`), or returns None if the model
            cannot reuse a cache; called for prompts with several continuations.
    """
    for _, group in groupby(prompts, key=_shape):
        same_shape = list(group)
        size = batch_size(same_shape[0])
        if len(same_shape[0].continuations) > 1:
            for prompt in same_shape:
                cache = prefill(prompt)
                ids = input_ids(prompt, cached=cache is not None)
                parts = [
                    forward(ids[start : start + size], cache, prompt) for start in range(0, len(ids), size)
                ]
                yield prompt, tuple(torch.cat(part) for part in zip(*parts, strict=True))
            continue
        for start in range(0, len(same_shape), size):
            batch = same_shape[start : start + size]
            ids = np.concatenate([input_ids(prompt, cached=False) for prompt in batch])
            results = forward(ids, None, batch[0])
            for row, prompt in enumerate(batch):
                yield prompt, tuple(result[row : row + 1] for result in results)


def input_ids(prompt: Prompt, cached: bool) -> np.ndarray:
    """(N, T) int64 ids of each continuation, preceded by its context.

    With a cache only the last id of the context precedes it. That id is never cached, since the first id of the
    continuation is predicted from it.
    """
    context = prompt.context[-1:] if cached else prompt.context
    tiled = np.broadcast_to(context, (len(prompt.continuations), len(context)))
    return np.concatenate([tiled, prompt.continuations], axis=1).astype(np.int64)


def _shape(prompt: Prompt) -> tuple:
    """The properties that prompts of one batch have in common."""
    return (
        len(prompt.context),
        prompt.continuations.shape,
        prompt.n_scored,
        prompt.max_new_tokens,
        prompt.candidate_ids is None,
    )
