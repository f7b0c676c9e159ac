"""Masks as values: which keys a query may see, and which keys some queries cannot see at all.

A mask may be any function of two indices. These compare equal where they hide the same, so that what is made of one is
made once, and they know where to look: a window over a long text costs its own pairs, not those that it hides.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from types import MethodType

import torch
from torch import Tensor

from posbench.position.geometry import Mask

# Indices of keys, start .. stop-1.
Span = tuple[int, int]


@dataclass(frozen=True)
class StructuredMask:
    """A mask that is a value."""

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        raise NotImplementedError

    def spans(self, first: int, last: int) -> list[Span]:
        """Where all keys are that the queries first .. last may see, and perhaps others; in order, apart."""
        raise NotImplementedError

    def __or__(self, other: StructuredMask) -> StructuredMask:
        return OrMask((self, other))


@dataclass(frozen=True)
class SlidingWindow(StructuredMask):
    """The last `tokens` keys, the query's own counted."""

    tokens: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i - j < self.tokens

    def spans(self, first: int, last: int) -> list[Span]:
        return [(first - self.tokens + 1, last + 1)]


@dataclass(frozen=True)
class BeyondWindow(StructuredMask):
    """All keys but the last `tokens`: what SlidingWindow hides."""

    tokens: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i - j >= self.tokens

    def spans(self, first: int, last: int) -> list[Span]:
        return [(0, last - self.tokens + 1)]


@dataclass(frozen=True)
class PrefixMask(StructuredMask):
    """The first `tokens` keys of the text."""

    tokens: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return j < self.tokens

    def spans(self, first: int, last: int) -> list[Span]:
        return [(0, self.tokens)]


@dataclass(frozen=True)
class SameChunk(StructuredMask):
    """The keys of one chunk of `tokens`: the query's own, or so many before it."""

    tokens: int
    before: int = 0

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i // self.tokens == j // self.tokens + self.before

    def spans(self, first: int, last: int) -> list[Span]:
        chunks = first // self.tokens - self.before, last // self.tokens - self.before
        return [(chunks[0] * self.tokens, (chunks[1] + 1) * self.tokens)]


@dataclass(frozen=True)
class EarlierChunks(StructuredMask):
    """The keys of all chunks of `tokens` that lie more than `before` before the query's own."""

    tokens: int
    before: int = 0

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return i // self.tokens > j // self.tokens + self.before

    def spans(self, first: int, last: int) -> list[Span]:
        return [(0, (last // self.tokens - self.before) * self.tokens)]


@dataclass(frozen=True)
class Blocks(StructuredMask):
    """The own block and the one before, the first ones, and some of the others that each block draws.

    BigBird's: Zaheer et al., NeurIPS 2020, section 2. arXiv:2007.14062. A function of the two blocks alone.
    """

    block: int
    global_blocks: int
    random_blocks: int
    seed: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        query, key = i // self.block, j // self.block
        candidates = query - 1 - self.global_blocks  # what lies between the global blocks and the neighbour
        seen = (query - key <= 1) | (key < self.global_blocks) | (candidates <= self.random_blocks)
        for drawn in self.drawn(query):
            seen = seen | (key == self.global_blocks + drawn)
        return seen

    def drawn(self, query: Tensor) -> list[Tensor]:
        """Distinct numbers of candidates for each block, by Floyd's algorithm."""
        candidates = query - 1 - self.global_blocks
        chosen: list[Tensor] = []
        for number in range(self.random_blocks):
            last = (candidates - self.random_blocks + number).clamp(min=0)
            drawn = scrambled(query, number, self.seed) % (last + 1)
            for earlier in chosen:
                drawn = torch.where(drawn == earlier, last, drawn)
            chosen.append(drawn)
        return chosen

    def spans(self, first: int, last: int) -> list[Span]:
        size, blocks = self.block, last // self.block + 1
        queries = torch.arange(first // size, blocks)[:, None]
        seen = self(queries * size, torch.arange(blocks) * size).any(0)
        return together([(block * size, (block + 1) * size) for block in seen.nonzero().flatten().tolist()])


@dataclass(frozen=True)
class OrMask(StructuredMask):
    """What one of the parts shows."""

    parts: tuple[StructuredMask, ...]

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return reduce(or_, (part(i, j) for part in self.parts))

    def spans(self, first: int, last: int) -> list[Span]:
        return together([span for part in self.parts for span in part.spans(first, last)])


@dataclass(frozen=True)
class AndMask(StructuredMask):
    """What all of the parts show, which may be any masks."""

    parts: tuple[Mask, ...]

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        return reduce(and_, (part(i, j) for part in self.parts))

    def spans(self, first: int, last: int) -> list[Span]:
        return visible_key_ranges(self.parts, first, last)


def and_masks(*masks: Mask | None) -> Mask | None:
    """The mask that allows what all of them allow; None allows everything."""
    present = tuple(mask for mask in masks if mask is not None)
    return AndMask(present) if len(present) > 1 else next(iter(present), None)


def together(spans: list[Span]) -> list[Span]:
    """The same keys in order, in as few pieces as they need."""
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def visible_key_ranges(masks: tuple[Mask, ...], first: int, last: int) -> list[Span]:
    """Where all keys are that causality and the masks let the queries first .. last see; in order, apart."""
    found = [(0, last + 1)]
    for mask in masks:
        if isinstance(mask, StructuredMask):
            spans = mask.spans(first, last)
            found = [(max(a, c), min(b, d)) for a, b in found for c, d in spans if max(a, c) < min(b, d)]
    return found


def mask_cache_key(mask: Mask) -> Hashable | None:
    """What is equal for masks that hide the same; None for a function, of which nobody can tell."""
    if isinstance(mask, AndMask | OrMask):
        names = tuple(mask_cache_key(part) for part in mask.parts)
        return None if None in names else (type(mask), *names)
    return mask if isinstance(mask, StructuredMask | MethodType) else None


def scrambled(block: Tensor, number: int, seed: int) -> Tensor:
    """Integers below 2^32 that look random: an integer hash, the same on every machine."""
    mixed = (block * 2654435761 + number * 97531 + seed * 40503 + 1) & 0xFFFFFFFF
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return mixed ^ (mixed >> 16)
