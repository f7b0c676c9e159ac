"""Structured masks: the keys that they allow, their spans, and their equality."""

import itertools

import pytest
import torch
from torch import Tensor

from posbench.position.geometry import Mask
from posbench.position.masks import (
    AndMask,
    BeyondWindow,
    Blocks,
    EarlierChunks,
    PrefixMask,
    SameChunk,
    SlidingWindow,
    StructuredMask,
    and_masks,
    mask_cache_key,
    visible_key_ranges,
)

KEYS = 60
MASKS = {
    "nearest": SlidingWindow(7),
    "farther": BeyondWindow(7),
    "first": PrefixMask(3),
    "chunk": SameChunk(8),
    "chunk before": SameChunk(8, before=1),
    "earlier chunks": EarlierChunks(8, before=1),
    "window and sinks": SlidingWindow(5) | PrefixMask(2),
    "three": SlidingWindow(5) | PrefixMask(2) | SameChunk(16),
    "sinks alone": AndMask((SlidingWindow(5) | PrefixMask(2), BeyondWindow(5))),
    "window of a function": AndMask((SlidingWindow(5), lambda i, j: j % 2 == 0)),
    "blocks": Blocks(4, 1, 2, 0),
}


def visible(mask: Mask) -> Tensor:
    index = torch.arange(KEYS)
    return (mask(index[:, None], index) & (index <= index[:, None])).expand(KEYS, KEYS)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("rows", [1, 6, KEYS])
def test_spans_contain_all_visible_keys(name: str, rows: int) -> None:
    mask, seen = MASKS[name], visible(MASKS[name])
    for first in range(0, KEYS - rows + 1):
        last = first + rows - 1
        spans = visible_key_ranges((mask,), first, last)
        held = {key for start, stop in spans for key in range(start, stop)}
        assert len(held) == sum(stop - start for start, stop in spans), "spans overlap"
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans)), "spans are not sorted"
        assert set(seen[first : last + 1].any(0).nonzero().flatten().tolist()) <= held
        assert held <= set(range(last + 1)), "a span goes past the last query"


@pytest.mark.parametrize("name", [name for name in MASKS if name not in ("window of a function", "blocks")])
def test_spans_of_one_query_are_exact(name: str) -> None:
    seen = visible(MASKS[name])
    for query in range(KEYS):
        held = [
            key
            for start, stop in visible_key_ranges((MASKS[name],), query, query)
            for key in range(start, stop)
        ]
        assert held == seen[query].nonzero().flatten().tolist()


def test_complementary_masks() -> None:
    near, far = visible(SlidingWindow(7)), visible(BeyondWindow(7))
    assert not (near & far).any()
    assert torch.equal(near | far, visible(lambda i, j: j <= i))
    parts = [visible(one) for one in (SameChunk(8), SameChunk(8, before=1), EarlierChunks(8, before=1))]
    assert torch.equal(sum(part.int() for part in parts), visible(lambda i, j: j <= i).int())


def test_and_masks_skips_none() -> None:
    assert and_masks(None, None) is None
    assert and_masks(None, SlidingWindow(3)) == SlidingWindow(3)
    assert and_masks(SlidingWindow(3), PrefixMask(1)) == AndMask((SlidingWindow(3), PrefixMask(1)))
    assert torch.equal(
        visible(and_masks(SlidingWindow(9), SameChunk(8))), visible(SlidingWindow(9)) & visible(SameChunk(8))
    )


def test_equal_masks_have_equal_cache_keys() -> None:
    assert (
        mask_cache_key(SlidingWindow(5))
        == mask_cache_key(SlidingWindow(5))
        != mask_cache_key(SlidingWindow(6))
    )
    assert mask_cache_key(SlidingWindow(5)) != mask_cache_key(BeyondWindow(5)), (
        "the same fields, another class"
    )
    assert mask_cache_key(and_masks(SlidingWindow(5), PrefixMask(2))) == mask_cache_key(
        and_masks(SlidingWindow(5), PrefixMask(2))
    )
    assert mask_cache_key(and_masks(SlidingWindow(5), PrefixMask(2))) != mask_cache_key(
        SlidingWindow(5) | PrefixMask(2)
    )
    assert mask_cache_key(lambda i, j: i == j) is None, "functions have no cache key"
    assert mask_cache_key(and_masks(SlidingWindow(5), lambda i, j: i == j)) is None
    assert isinstance(MASKS["blocks"], StructuredMask)
