"""A small network on every pair of a query and a key, whose hidden layer is never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pairs of a tile on the CPU, where a hidden layer of 32 stays in a core's cache, and elsewhere.
PAIRS, MANY_PAIRS = 1 << 12, 1 << 22
Tile = tuple[slice, slice]


class Network(torch.autograd.Function):
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
        read = _spread(x if seen is None else x * seen, into.shape[2], 1)
        y = x.new_zeros(len(x), len(second), *x.shape[2:])
        room = _room(x, len(into))
        for tile in _tiles(x, diagonal):
            before_T, y_T = _at(before, tile), _at(y, tile)
            visible = None if seen is None else seen[tile]
            for b, read_t in enumerate(_at(read, tile).unbind()):
                h = _hidden(read_t, _of(before_T, b), first, slope, visible, room)
                y_T[b] = (second @ h.flatten(1)).view(y_T.shape[1:])
        return _gathered(y, into.shape[2], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, before, into, onto, seen = ctx.saved_tensors
        (first, second), taps = _matrices(into, onto), into.shape[2]
        read = _spread(x if seen is None else x * seen, taps, 1)
        dy, d_read, d_before = _spread(d_out, taps, -1), torch.zeros_like(read), torch.zeros_like(before)
        d_first_T, d_second = second.new_zeros(first.T.shape), torch.zeros_like(second)
        room, d_room = _room(x, len(into)), _room(x, len(into))
        for tile in _tiles(x, ctx.diagonal):
            before_T, d_before_T, dy_T, d_read_T = (_at(of, tile) for of in (before, d_before, dy, d_read))
            visible = None if seen is None else seen[tile]
            for b, read_t in enumerate(_at(read, tile).unbind()):
                dy_t = dy_T[b].flatten(1)
                h = _hidden(read_t, _of(before_T, b), first, ctx.slope, visible, room)
                dh = d_room[: h.numel()].view_as(h)
                flat, d_flat = h.flatten(1), dh.flatten(1)
                d_second.addmm_(dy_t, flat.T)
                torch.mm(second.T, dy_t, out=d_flat)
                if visible is not None:
                    dh.mul_(visible)
                torch.ops.aten.leaky_relu_backward(dh, h, ctx.slope, True, grad_input=dh)
                d_first_T.addmm_(read_t.flatten(1), d_flat.T)  # the other way round takes four times as long
                into_b = _of(d_before_T, b)
                into_b += dh.sum_to_size(into_b.shape)
                d_read_T[b] = (first.T @ d_flat).view(d_read_T.shape[1:])
        dx = _gathered(d_read, taps, -1)
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


def _hidden(
    read: Tensor, before: Tensor, first: Tensor, slope: float, visible: Tensor | None, room: Tensor
) -> Tensor:
    """(K, r, s) what the second layer reads, in `room`; `read` (N C, r, s)."""
    flat = room[: len(first) * read[0].numel()].view(len(first), -1)
    h = flat.view(len(first), *read.shape[1:])
    h.copy_(before.expand_as(h))
    F.leaky_relu_(flat.addmm_(first, read.flatten(1)), slope)
    return h if visible is None else h.mul_(visible)


def _spread(x: Tensor, taps: int, sign: int) -> Tensor:
    """(B, N C, R, S): for each tap n, what stands n - N // 2 keys after; before, with sign -1."""
    return torch.cat([_moved(x, sign * (n - taps // 2)) for n in range(taps)], 1) if taps > 1 else x


def _gathered(x: Tensor, taps: int, sign: int) -> Tensor:
    """(B, C, R, S): the sum over the taps, each moved as `_spread` moves."""
    if taps == 1:
        return x
    out, *others = (_moved(part, sign * (n - taps // 2)) for n, part in enumerate(x.chunk(taps, 1)))
    for other in others:
        out = out.add_(other)
    return out


def _moved(x: Tensor, by: int) -> Tensor:
    """x[.., j + by] at j, and 0 from beyond."""
    return F.pad(x, (-by, by))
