"""Keys that masks hide from whole blocks of rows are left out without changing the output."""

import sys
from dataclasses import replace

import pytest
import torch

from posbench.kernels.cpu import mask_pruning
from posbench.kernels.cpu.mask_pruning import beyond_window_only, is_mostly_hidden, prune_masked_keys
from posbench.kernels.dense import dense
from posbench.kernels.sdpa import sdpa
from posbench.position.biases import DistanceBias, ElementwiseBias, SeparableBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry, Mask
from posbench.position.masks import AndMask, BeyondWindow, Blocks, PrefixMask, SameChunk, SlidingWindow

LENGTH = 210
WINDOWS: dict[str, tuple[Mask, ...]] = {
    "window": (SlidingWindow(9),),
    "sinks and window": (SlidingWindow(9) | PrefixMask(2),),
    "sinks alone": (SlidingWindow(9) | PrefixMask(2), BeyondWindow(9)),
    "chunks": (SameChunk(16),),
    "blocks": (Blocks(4, 1, 1, 0),),
    "window and a function": (AndMask((SlidingWindow(9), lambda i, j: (i == j) | (j % 3 == 0))),),
}


@pytest.fixture(autouse=True)
def shorten_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_pruning, "LONG", 64)
    for module in (mask_pruning, sys.modules["posbench.kernels.sdpa"]):
        monkeypatch.setattr(module, "BLOCK", 32)


def attention_call(masks: tuple[Mask, ...], start: int = 0, **more: object) -> AttentionCall:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, LENGTH, 4, generator=draw, dtype=torch.float64) for _ in "qkv")
    geo = Geometry.from_range(start, LENGTH)
    return replace(AttentionCall(q[:, :, start:], k, v, 0.5, geo, masks, with_lse=True), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [0, 150])
@pytest.mark.parametrize("name", WINDOWS)
@torch.no_grad()
def test_equals_dense(name: str, start: int) -> None:
    slope_H = torch.tensor([0.3, 0.1], dtype=torch.float64)
    biases = (
        None,
        DistanceBias(lambda n: -slope_H.view(-1, *[1] * n.dim()) * n),
        ElementwiseBias(lambda i, j: torch.cos(slope_H[:, None, None] * (i - j))),
    )
    for bias in biases:
        call = attention_call(WINDOWS[name], start, bias=bias)
        assert is_mostly_hidden(call)
        (out, lse), (expected, expected_lse) = sdpa(call), dense(call)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(lse, expected_lse, rtol=0, atol=1e-10)


def test_only_visible_keys_remain() -> None:
    """A block of 32 rows with a window of 9 sees 40 keys and 2 sinks."""
    call = attention_call((SlidingWindow(9) | PrefixMask(2),))
    assert len(prune_masked_keys(call, slice(160, 192)).geo.k_index_S) == 42
    assert prune_masked_keys(call, slice(160, 192)).k_BHSE.shape[2] == 42


def test_rows_without_visible_keys_keep_one() -> None:
    call = prune_masked_keys(attention_call((BeyondWindow(100),)), slice(0, 32))
    assert call.geo.k_index_S.tolist() == [0]
    assert not call.geo.visible(call.masks).any()


def test_only_mostly_hidden_calls_are_pruned() -> None:
    assert not is_mostly_hidden(attention_call(()))
    assert not is_mostly_hidden(attention_call((SlidingWindow(LENGTH - 1),)))
    assert not is_mostly_hidden(attention_call((lambda i, j: i - j < 3,))), (
        "the visible keys of a function are unknown"
    )
    row = torch.zeros(2, 2, LENGTH, dtype=torch.float64)
    assert not is_mostly_hidden(attention_call((SlidingWindow(9),), bias=SeparableBias(row, row)))
    assert is_mostly_hidden(attention_call((SlidingWindow(9),)))


@pytest.mark.parametrize("window", [1, 100, LENGTH - 1])
@torch.no_grad()
def test_beyond_a_window(window: int) -> None:
    call = attention_call((BeyondWindow(window),))
    assert beyond_window_only(call) == window
    (out, lse), (expected, expected_lse) = sdpa(call), dense(call)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=1e-10)
    row = torch.zeros(2, 2, LENGTH, dtype=torch.float64)
    others = (
        attention_call((BeyondWindow(window),), start=9),
        attention_call((BeyondWindow(window),), bias=SeparableBias(row, row)),
    )
    assert not any(
        map(
            beyond_window_only,
            (
                *others,
                attention_call((BeyondWindow(window), PrefixMask(2))),
                attention_call((SlidingWindow(9),)),
            ),
        )
    )
