"""Structured masks: masks that are values, and whose visible keys can be bounded without evaluating them.

A mask may be any function of two indices. A `StructuredMask` is a frozen dataclass: masks of one class and equal
settings compare equal, so tables built for a mask can be cached. Kernels skip the keys that it hides, so a window
over a long text costs only its own pairs.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from types import MethodType

import torch
from torch import Tensor

from posbench.position.geometry import Mask, apply_mask

# Key indices start .. stop-1.
Span = tuple[int, int]


@dataclass(frozen=True)
class StructuredMask:
    """Base class of masks that compare equal if their class and settings are equal."""

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        """Returns booleans, True where query index i may attend to key index j; broadcasts."""
        raise NotImplementedError

    def spans(self, first: int, last: int) -> list[Span]:
        """Returns sorted, disjoint spans that contain every key visible to any of the queries first .. last.

        They may contain other keys, and indices outside the sequence.
        """
        raise NotImplementedError

    def __or__(self, other: StructuredMask) -> StructuredMask:
        return OrMask((self, other))


@dataclass(frozen=True)
class SlidingWindow(StructuredMask):
    """The last `tokens` keys, including the query's own."""

    tokens: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i - j < self.tokens

    def spans(self, first: int, last: int) -> list[Span]:
        return [(first - self.tokens + 1, last + 1)]


@dataclass(frozen=True)
class BeyondWindow(StructuredMask):
    """All keys except the last `tokens`: the complement of SlidingWindow."""

    tokens: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i - j >= self.tokens

    def spans(self, first: int, last: int) -> list[Span]:
        return [(0, last - self.tokens + 1)]


@dataclass(frozen=True)
class PrefixMask(StructuredMask):
    """The first `tokens` keys of the sequence."""

    tokens: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return j < self.tokens

    def spans(self, first: int, last: int) -> list[Span]:
        return [(0, self.tokens)]


@dataclass(frozen=True)
class SameChunk(StructuredMask):
    """The keys of the query's own chunk of `tokens`, or of the chunk `before` chunks earlier."""

    tokens: int
    before: int = 0

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i // self.tokens == j // self.tokens + self.before

    def spans(self, first: int, last: int) -> list[Span]:
        chunks = first // self.tokens - self.before, last // self.tokens - self.before
        return [(chunks[0] * self.tokens, (chunks[1] + 1) * self.tokens)]


@dataclass(frozen=True)
class EarlierChunks(StructuredMask):
    """The keys of all chunks that are more than `before` chunks earlier than the query's chunk.

    Attributes:
        tokens: length of a chunk; the first begins at index 0.
        before: number of chunks before the query's chunk that are hidden as well.
    """

    tokens: int
    before: int = 0

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i // self.tokens > j // self.tokens + self.before

    def spans(self, first: int, last: int) -> list[Span]:
        return [(0, (last // self.tokens - self.before) * self.tokens)]


@dataclass(frozen=True)
class Blocks(StructuredMask):
    """BigBird's block-sparse mask: the query's block, the previous one, global blocks and random blocks.

    Zaheer et al., NeurIPS 2020, section 2. arXiv:2007.14062. A function of the two blocks alone.

    Attributes:
        block: tokens per block.
        global_blocks: first blocks of the sequence, visible to all queries.
        random_blocks: further blocks drawn for each query block.
        seed: seed of the draws.
    """

    block: int
    global_blocks: int
    random_blocks: int
    seed: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        query, key = i // self.block, j // self.block
        candidates = query - 1 - self.global_blocks  # the blocks between the global ones and the previous one
        seen = (query - key <= 1) | (key < self.global_blocks) | (candidates <= self.random_blocks)
        for drawn in self._draw(query):
            seen = seen | (key == self.global_blocks + drawn)
        return seen

    def _draw(self, query: Tensor) -> list[Tensor]:
        """Returns `random_blocks` distinct candidates for each query block, by Floyd's algorithm."""
        candidates = query - 1 - self.global_blocks
        chosen: list[Tensor] = []
        for number in range(self.random_blocks):
            last = (candidates - self.random_blocks + number).clamp(min=0)
            drawn = _hash(query, number, self.seed) % (last + 1)
            for earlier in chosen:
                drawn = torch.where(drawn == earlier, last, drawn)
            chosen.append(drawn)
        return chosen

    def spans(self, first: int, last: int) -> list[Span]:
        size, blocks = self.block, last // self.block + 1
        queries = torch.arange(first // size, blocks)[:, None]
        seen = self(queries * size, torch.arange(blocks) * size).any(0)
        return _union([(block * size, (block + 1) * size) for block in seen.nonzero().flatten().tolist()])


@dataclass(frozen=True)
class OrMask(StructuredMask):
    """The keys that any of the parts allows."""

    parts: tuple[StructuredMask, ...]

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return reduce(or_, (apply_mask(part, i, j) for part in self.parts))

    def spans(self, first: int, last: int) -> list[Span]:
        return _union([span for part in self.parts for span in part.spans(first, last)])


@dataclass(frozen=True)
class AndMask(StructuredMask):
    """The keys that all of the parts allow; parts may be plain functions."""

    parts: tuple[Mask, ...]

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return reduce(and_, (apply_mask(part, i, j) for part in self.parts))

    def spans(self, first: int, last: int) -> list[Span]:
        return visible_key_ranges(self.parts, first, last)


def and_masks(*masks: Mask | None) -> Mask | None:
    """Combines masks by AND; None is a mask that hides nothing."""
    present = tuple(mask for mask in masks if mask is not None)
    return AndMask(present) if len(present) > 1 else next(iter(present), None)


def _union(spans: list[Span]) -> list[Span]:
    """Returns sorted, disjoint spans of the same keys."""
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def visible_key_ranges(masks: tuple[Mask, ...], first: int, last: int) -> list[Span]:
    """Returns sorted, disjoint spans with every key that causality and `masks` allow any query first .. last."""
    found = [(0, last + 1)]
    for mask in masks:
        if isinstance(mask, StructuredMask):
            spans = mask.spans(first, last)
            found = [(max(a, c), min(b, d)) for a, b in found for c, d in spans if max(a, c) < min(b, d)]
    return found


def mask_cache_key(mask: Mask) -> Hashable | None:
    """Returns a hashable key of a mask, equal for masks of one structure and equal settings; None if it has no key.

    Structured masks and bound methods have a key; other functions, and combinations that contain one, have none.
    """
    if isinstance(mask, AndMask | OrMask):
        names = tuple(mask_cache_key(part) for part in mask.parts)
        return None if None in names else (type(mask), *names)
    return mask if isinstance(mask, StructuredMask | MethodType) else None


def _hash(block: Tensor, number: int, seed: int) -> Tensor:
    """Returns pseudorandom integers below 2^32, by an integer hash that is the same on every machine."""
    mixed = (block * 2654435761 + number * 97531 + seed * 40503 + 1) & 0xFFFFFFFF
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return mixed ^ (mixed >> 16)
