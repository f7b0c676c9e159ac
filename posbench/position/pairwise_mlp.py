"""A small network on every pair of a query and a key, whose hidden layer is never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pairs of a tile on the CPU, where a hidden layer of 32 fits a core's second cache, and elsewhere.
PAIRS, MANY_PAIRS = 1 << 14, 1 << 22
Tile = tuple[slice, slice]


class PairwiseMLP(torch.autograd.Function):
    """Two convolutions along the keys of a row with a leaky ReLU between, by pair of a query and a key.

    x (B, C, R, S), before (B or 1, K, R or 1, S or 1) what the first layer adds, into (K, C, N), onto (H, K, N),
    seen (R, S) the factor of x and of the hidden layer, or None -> (B, H, R, S). Where `diagonal` is a number,
    row r sees no key after r + diagonal, and what it reads there means nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        before: Tensor,
        into: Tensor,
        onto: Tensor,
        slope: float,
        seen: Tensor | None = None,
        diagonal: int | None = None,
    ) -> Tensor:
        ctx.save_for_backward(x, before, into, onto, seen)
        ctx.slope, ctx.diagonal = slope, diagonal
        first, second = _matrices(into, onto)
        taps, out = into.shape[2], x.new_zeros(len(x), onto.shape[0], *x.shape[2:])
        read_room, room = _room(x, first.shape[1]), _room(x, len(first))
        for tile in _tiles(x, diagonal):
            before_T = _at(before, tile)
            for b in range(len(x)):
                read_t = _taken(x[b], tile, taps, 1, read_room, seen)
                h = _hidden(read_t, _of(before_T, b), first, slope, room)
                y_t = (second @ h.flatten(1)).view(-1, *h.shape[1:])
                # A factor of a pair's hidden layer is one of what the second layer makes of it, which is narrower.
                _given(y_t if seen is None else y_t.mul_(seen[tile]), out[b], tile, taps, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, before, into, onto, seen = ctx.saved_tensors
        (first, second), taps = _matrices(into, onto), into.shape[2]
        dx, d_before = torch.zeros_like(x), torch.zeros_like(before)
        d_first_T, d_second = second.new_zeros(first.T.shape), torch.zeros_like(second)
        read_room, dy_room = _room(x, first.shape[1]), _room(x, len(second))
        room, d_room = _room(x, len(first)), _room(x, len(first))
        for tile in _tiles(x, ctx.diagonal):
            before_T, d_before_T = _at(before, tile), _at(d_before, tile)
            for b in range(len(x)):
                dy_t = _taken(d_out[b], tile, taps, -1, dy_room)
                dy_t = (dy_t if seen is None else dy_t.mul_(seen[tile])).flatten(1)
                read_t = _taken(x[b], tile, taps, 1, read_room, seen)
                h = _hidden(read_t, _of(before_T, b), first, ctx.slope, room)
                dh = d_room[: h.numel()].view_as(h)
                flat, d_flat = h.flatten(1), dh.flatten(1)
                d_second.addmm_(dy_t, flat.T)
                torch.mm(second.T, dy_t, out=d_flat)
                torch.ops.aten.leaky_relu_backward(dh, h, ctx.slope, True, grad_input=dh)
                d_first_T.addmm_(read_t.flatten(1), d_flat.T)  # the other way round takes four times as long
                into_b = _of(d_before_T, b)
                into_b += dh.sum_to_size(into_b.shape)
                _given((first.T @ d_flat).view_as(read_t), dx[b], tile, taps, -1)
        return (
            dx if seen is None else dx.mul_(seen),
            d_before,
            d_first_T.T.unflatten(1, (taps, -1)).mT,
            d_second.unflatten(0, (taps, -1)).permute(1, 2, 0),
            None,
            None,
            None,
        )


def _matrices(into: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
    """(K, N C) and (N H, K)."""
    return into.mT.flatten(1), onto.permute(2, 0, 1).flatten(0, 1)


def _tiles(x: Tensor, diagonal: int | None) -> Iterator[Tile]:
    """Some rows, and the keys that the last of them sees."""
    queries, keys = x.shape[2:]
    step = _rows(x)
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        yield slice(start, stop), slice(0, keys if diagonal is None else min(keys, stop + diagonal))


def _rows(x: Tensor) -> int:
    """Rows of a tile."""
    return max(1, min(x.shape[2], (PAIRS if x.device.type == "cpu" else MANY_PAIRS) // x.shape[3]))


def _room(x: Tensor, hidden: int) -> Tensor:
    """For the hidden layer of a tile: memory that is asked for anew is slower than what is done in it."""
    return x.new_empty(hidden * _rows(x) * x.shape[3])


def _at(whole: Tensor, tile: Tile) -> Tensor:
    """(B, K, r or 1, s or 1) of what may be the same for all rows or keys."""
    rows, keys = tile
    return whole[
        :, :, rows if whole.shape[2] > 1 else slice(None), keys if whole.shape[3] > 1 else slice(None)
    ]


def _of(shared: Tensor, b: int) -> Tensor:
    """That of sequence b, where all may share one."""
    return shared[min(b, len(shared) - 1)]


def _hidden(read: Tensor, before: Tensor, first: Tensor, slope: float, room: Tensor) -> Tensor:
    """(K, r, s) what the second layer reads, in `room`; `read` (N C, r, s)."""
    flat = room[: len(first) * read[0].numel()].view(len(first), -1)
    h = flat.view(len(first), *read.shape[1:])
    h.copy_(before.expand_as(h))
    F.leaky_relu_(flat.addmm_(first, read.flatten(1)), slope)
    return h


def _taken(
    source: Tensor, tile: Tile, taps: int, sign: int, room: Tensor, seen: Tensor | None = None
) -> Tensor:
    """(N C, r, s) in `room`: for each tap n, what stands n - N // 2 keys after; before, with sign -1; 0 from beyond."""
    rows, width = tile[0], tile[1].stop
    channels, keys = len(source), source.shape[2]
    taken = room[: taps * channels * (rows.stop - rows.start) * width].view(taps * channels, -1, width)
    for part, by in zip(taken.chunk(taps), _moves(taps, sign), strict=True):
        start, stop = max(0, -by), min(width, keys - by)
        if start > 0:
            part[..., :start].zero_()
        if stop < width:
            part[..., stop:].zero_()
        there = slice(start + by, stop + by)
        # In two steps: torch.compile writes no product into a part of memory.
        part[..., start:stop] = source[:, rows, there]
        if seen is not None:
            part[..., start:stop] *= seen[rows, there]
    return taken


def _given(parts: Tensor, into: Tensor, tile: Tile, taps: int, sign: int) -> None:
    """Add to (C, R, S) what a tile has for each tap, moved as `_taken` moves."""
    rows, width = tile[0], tile[1].stop
    for part, by in zip(parts.chunk(taps), _moves(taps, sign), strict=True):
        start, stop = max(0, -by), min(into.shape[2], width - by)
        into[:, rows, start:stop] += part[..., start + by : stop + by]


def _moves(taps: int, sign: int) -> list[int]:
    return [sign * (n - taps // 2) for n in range(taps)]
