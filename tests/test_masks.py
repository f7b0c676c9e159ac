"""Masks as values: what they show, where they say that it is, and which are the same."""

import itertools

import pytest
import torch
from torch import Tensor

from posbench.position.geometry import Mask
from posbench.position.masks import (
    Blocks,
    Both,
    Chunk,
    EarlierChunks,
    Farther,
    First,
    Known,
    Nearest,
    both,
    name_of,
    shown,
)

KEYS = 60
MASKS = {
    "nearest": Nearest(7),
    "farther": Farther(7),
    "first": First(3),
    "chunk": Chunk(8),
    "chunk before": Chunk(8, before=1),
    "earlier chunks": EarlierChunks(8, before=1),
    "window and sinks": Nearest(5) | First(2),
    "three": Nearest(5) | First(2) | Chunk(16),
    "sinks alone": Both((Nearest(5) | First(2), Farther(5))),
    "window of a function": Both((Nearest(5), lambda i, j: j % 2 == 0)),
    "blocks": Blocks(4, 1, 2, 0),
}


def visible(mask: Mask) -> Tensor:
    index = torch.arange(KEYS)
    return (mask(index[:, None], index) & (index <= index[:, None])).expand(KEYS, KEYS)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("rows", [1, 6, KEYS])
def test_spans_hold_all_that_is_seen(name: str, rows: int) -> None:
    mask, seen = MASKS[name], visible(MASKS[name])
    for first in range(0, KEYS - rows + 1):
        last = first + rows - 1
        spans = shown((mask,), first, last)
        held = {key for start, stop in spans for key in range(start, stop)}
        assert len(held) == sum(stop - start for start, stop in spans), "no key twice"
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans)), "in order"
        assert set(seen[first : last + 1].any(0).nonzero().flatten().tolist()) <= held
        assert held <= set(range(last + 1)), "no key after the last query"


@pytest.mark.parametrize("name", [name for name in MASKS if name not in ("window of a function", "blocks")])
def test_spans_of_one_query_hold_nothing_else(name: str) -> None:
    seen = visible(MASKS[name])
    for query in range(KEYS):
        held = [key for start, stop in shown((MASKS[name],), query, query) for key in range(start, stop)]
        assert held == seen[query].nonzero().flatten().tolist()


def test_what_hides_what_another_shows() -> None:
    near, far = visible(Nearest(7)), visible(Farther(7))
    assert not (near & far).any()
    assert torch.equal(near | far, visible(lambda i, j: j <= i))
    parts = [visible(one) for one in (Chunk(8), Chunk(8, before=1), EarlierChunks(8, before=1))]
    assert torch.equal(sum(part.int() for part in parts), visible(lambda i, j: j <= i).int())


def test_both_leaves_out_what_is_none() -> None:
    assert both(None, None) is None
    assert both(None, Nearest(3)) == Nearest(3)
    assert both(Nearest(3), First(1)) == Both((Nearest(3), First(1)))
    assert torch.equal(visible(both(Nearest(9), Chunk(8))), visible(Nearest(9)) & visible(Chunk(8)))


def test_masks_that_hide_the_same_have_one_name() -> None:
    assert name_of(Nearest(5)) == name_of(Nearest(5)) != name_of(Nearest(6))
    assert name_of(Nearest(5)) != name_of(Farther(5)), "of the same fields"
    assert name_of(both(Nearest(5), First(2))) == name_of(both(Nearest(5), First(2)))
    assert name_of(both(Nearest(5), First(2))) != name_of(Nearest(5) | First(2))
    assert name_of(lambda i, j: i == j) is None, "a function is made anew each time"
    assert name_of(both(Nearest(5), lambda i, j: i == j)) is None
    assert isinstance(MASKS["blocks"], Known)
