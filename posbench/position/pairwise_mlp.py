"""An MLP on every pair of a query and a key, computed in tiles: its hidden layer is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pairs per tile. On the CPU a hidden layer of 32 units then fits the L2 cache of a core.
CPU_TILE_PAIRS, GPU_TILE_PAIRS = 1 << 14, 1 << 22
Tile = tuple[slice, slice]


class PairwiseMLP(torch.autograd.Function):
    """Two convolutions along the keys with a leaky ReLU between; with one tap, an MLP applied to each pair.

    hidden = visible * leaky_relu(conv(visible * x, weight_in) + bias); output = conv(hidden, weight_out)

    Args:
        x: (B, C, R, S).
        bias: (B or 1, K, R or 1, S or 1), added before the leaky ReLU.
        weight_in: (K, C, N) for N taps.
        weight_out: (H, K, N).
        slope: negative slope of the leaky ReLU.
        visible: (R, S) factor of x and of the hidden layer; None for 1.
        diagonal: if given, only keys up to r + diagonal are computed for row r; the output past them is undefined.

    Returns:
        (B, H, R, S).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor,
        weight_in: Tensor,
        weight_out: Tensor,
        slope: float,
        visible: Tensor | None = None,
        diagonal: int | None = None,
    ) -> Tensor:
        ctx.save_for_backward(x, bias, weight_in, weight_out, visible)
        ctx.slope, ctx.diagonal = slope, diagonal
        first, second = _matrices(weight_in, weight_out)
        taps, out = weight_in.shape[2], x.new_zeros(len(x), weight_out.shape[0], *x.shape[2:])
        read_buffer, hidden_buffer = _buffer(x, first.shape[1]), _buffer(x, len(first))
        for tile in _tiles(x, diagonal):
            bias_t = _in_tile(bias, tile)
            for b in range(len(x)):
                read_t = _im2col(x[b], tile, taps, 1, read_buffer, visible)
                h = _hidden(read_t, _of_sequence(bias_t, b), first, slope, hidden_buffer)
                y_t = (second @ h.flatten(1)).view(-1, *h.shape[1:])
                # The factor of the hidden layer commutes with the second layer, whose output is narrower.
                _add_col2im(y_t if visible is None else y_t.mul_(visible[tile]), out[b], tile, taps, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, weight_in, weight_out, visible = ctx.saved_tensors
        (first, second), taps = _matrices(weight_in, weight_out), weight_in.shape[2]
        dx, d_bias = torch.zeros_like(x), torch.zeros_like(bias)
        d_first_T, d_second = second.new_zeros(first.T.shape), torch.zeros_like(second)
        read_buffer, dy_buffer = _buffer(x, first.shape[1]), _buffer(x, len(second))
        hidden_buffer, d_hidden_buffer = _buffer(x, len(first)), _buffer(x, len(first))
        for tile in _tiles(x, ctx.diagonal):
            bias_t, d_bias_t = _in_tile(bias, tile), _in_tile(d_bias, tile)
            for b in range(len(x)):
                dy_t = _im2col(d_out[b], tile, taps, -1, dy_buffer)
                dy_t = (dy_t if visible is None else dy_t.mul_(visible[tile])).flatten(1)
                read_t = _im2col(x[b], tile, taps, 1, read_buffer, visible)
                h = _hidden(read_t, _of_sequence(bias_t, b), first, ctx.slope, hidden_buffer)
                dh = d_hidden_buffer[: h.numel()].view_as(h)
                flat, d_flat = h.flatten(1), dh.flatten(1)
                d_second.addmm_(dy_t, flat.T)
                torch.mm(second.T, dy_t, out=d_flat)
                torch.ops.aten.leaky_relu_backward(dh, h, ctx.slope, True, grad_input=dh)
                # The transpose of this product would take four times as long.
                d_first_T.addmm_(read_t.flatten(1), d_flat.T)
                d_bias_b = _of_sequence(d_bias_t, b)
                d_bias_b += dh.sum_to_size(d_bias_b.shape)
                _add_col2im((first.T @ d_flat).view_as(read_t), dx[b], tile, taps, -1)
        return (
            dx if visible is None else dx.mul_(visible),
            d_bias,
            d_first_T.T.unflatten(1, (taps, -1)).mT,
            d_second.unflatten(0, (taps, -1)).permute(1, 2, 0),
            None,
            None,
            None,
        )


def _matrices(weight_in: Tensor, weight_out: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the weights as matrices (K, N C) and (N H, K)."""
    return weight_in.mT.flatten(1), weight_out.permute(2, 0, 1).flatten(0, 1)


def _tiles(x: Tensor, diagonal: int | None) -> Iterator[Tile]:
    """Yields consecutive rows, each with the keys that the last of them sees."""
    queries, keys = x.shape[2:]
    step = _tile_rows(x)
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        yield slice(start, stop), slice(0, keys if diagonal is None else min(keys, stop + diagonal))


def _tile_rows(x: Tensor) -> int:
    pairs = CPU_TILE_PAIRS if x.device.type == "cpu" else GPU_TILE_PAIRS
    return max(1, min(x.shape[2], pairs // x.shape[3]))


def _buffer(x: Tensor, channels: int) -> Tensor:
    """Returns memory for `channels` numbers per pair of a tile: allocating it per tile is slower than its use."""
    return x.new_empty(channels * _tile_rows(x) * x.shape[3])


def _in_tile(x: Tensor, tile: Tile) -> Tensor:
    """Returns the part of (B, K, R or 1, S or 1) in a tile."""
    rows, keys = tile
    return x[:, :, rows if x.shape[2] > 1 else slice(None), keys if x.shape[3] > 1 else slice(None)]


def _of_sequence(x: Tensor, b: int) -> Tensor:
    """Returns x[b], or x[0] if all sequences share it."""
    return x[min(b, len(x) - 1)]


def _hidden(read: Tensor, bias: Tensor, first: Tensor, slope: float, buffer: Tensor) -> Tensor:
    """Returns the (K, r, s) hidden layer, in `buffer`, from the (N C, r, s) output of `_im2col`."""
    flat = buffer[: len(first) * read[0].numel()].view(len(first), -1)
    h = flat.view(len(first), *read.shape[1:])
    h.copy_(bias.expand_as(h))
    F.leaky_relu_(flat.addmm_(first, read.flatten(1)), slope)
    return h


def _im2col(
    source: Tensor, tile: Tile, taps: int, sign: int, buffer: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Returns (N C, r, s), in `buffer`: for tap n the (C, R, S) source n - N // 2 keys later, 0 outside.

    Args:
        sign: -1 for earlier instead of later keys.
        visible: (R, S) factor of the source.
    """
    rows, width = tile[0], tile[1].stop
    channels, keys = len(source), source.shape[2]
    columns = buffer[: taps * channels * (rows.stop - rows.start) * width].view(taps * channels, -1, width)
    for part, shift in zip(columns.chunk(taps), _shifts(taps, sign), strict=True):
        start, stop = max(0, -shift), min(width, keys - shift)
        if start > 0:
            part[..., :start].zero_()
        if stop < width:
            part[..., stop:].zero_()
        shifted = slice(start + shift, stop + shift)
        # In two steps: torch.compile cannot write a product into a slice.
        part[..., start:stop] = source[:, rows, shifted]
        if visible is not None:
            part[..., start:stop] *= visible[rows, shifted]
    return columns


def _add_col2im(columns: Tensor, target: Tensor, tile: Tile, taps: int, sign: int) -> None:
    """Adds (N C, r, s) columns to the (C, R, S) target, each tap shifted as in `_im2col`."""
    rows, width = tile[0], tile[1].stop
    for part, shift in zip(columns.chunk(taps), _shifts(taps, sign), strict=True):
        start, stop = max(0, -shift), min(target.shape[2], width - shift)
        target[:, rows, start:stop] += part[..., start + shift : stop + shift]


def _shifts(taps: int, sign: int) -> list[int]:
    return [sign * (n - taps // 2) for n in range(taps)]
