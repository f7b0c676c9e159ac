"""A small MLP on every pair of a query and a key, in tiles: its hidden layer is never stored whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pairs in a tile: on the CPU a hidden layer of 32 units then fits a core's L2 cache; other devices take larger tiles.
PAIRS_CPU, PAIRS_GPU = 1 << 14, 1 << 22
Tile = tuple[slice, slice]  # rows, keys


class PairwiseMLP(torch.autograd.Function):
    """Two convolutions of N taps along the keys of a row, with a leaky ReLU in between: (B, C, R, S) -> (B, H, R, S).

    Args:
        x: (B, C, R, S), channels of each pair.
        bias: (B or 1, K, R or 1, S or 1), what the first layer adds.
        weight_in, weight_out: (K, C, N) and (H, K, N), the two layers.
        slope: negative slope of the leaky ReLU; 0 is a ReLU.
        visible: (R, S), a factor on x and on the hidden layer, or None.
        diagonal: row r attends to no key after r + diagonal, and its outputs there are undefined; None for all keys.
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
        matrix_in, matrix_out = _matrices(weight_in, weight_out)
        taps, out = weight_in.shape[2], x.new_zeros(len(x), weight_out.shape[0], *x.shape[2:])
        x_buffer, h_buffer = _buffer(x, matrix_in.shape[1]), _buffer(x, len(matrix_in))
        for tile in _tiles(x, diagonal):
            bias_t = _crop(bias, tile)
            for b in range(len(x)):
                x_t = _gather_taps(x[b], tile, taps, 1, x_buffer, visible)
                h = _hidden(x_t, _sample(bias_t, b), matrix_in, slope, h_buffer)
                y_t = (matrix_out @ h.flatten(1)).view(-1, *h.shape[1:])
                # A factor on a pair's hidden layer is one on the second layer's output, which is narrower.
                _scatter_taps(y_t if visible is None else y_t.mul_(visible[tile]), out[b], tile, taps, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, weight_in, weight_out, visible = ctx.saved_tensors
        (matrix_in, matrix_out), taps = _matrices(weight_in, weight_out), weight_in.shape[2]
        dx, d_bias = torch.zeros_like(x), torch.zeros_like(bias)
        d_in_transposed, d_out_matrix = matrix_out.new_zeros(matrix_in.T.shape), torch.zeros_like(matrix_out)
        x_buffer, dy_buffer = _buffer(x, matrix_in.shape[1]), _buffer(x, len(matrix_out))
        h_buffer, dh_buffer = _buffer(x, len(matrix_in)), _buffer(x, len(matrix_in))
        for tile in _tiles(x, ctx.diagonal):
            bias_t, d_bias_t = _crop(bias, tile), _crop(d_bias, tile)
            for b in range(len(x)):
                dy_t = _gather_taps(d_out[b], tile, taps, -1, dy_buffer)
                dy_t = (dy_t if visible is None else dy_t.mul_(visible[tile])).flatten(1)
                x_t = _gather_taps(x[b], tile, taps, 1, x_buffer, visible)
                h = _hidden(x_t, _sample(bias_t, b), matrix_in, ctx.slope, h_buffer)
                dh = dh_buffer[: h.numel()].view_as(h)
                flat, d_flat = h.flatten(1), dh.flatten(1)
                d_out_matrix.addmm_(dy_t, flat.T)
                torch.mm(matrix_out.T, dy_t, out=d_flat)
                torch.ops.aten.leaky_relu_backward(dh, h, ctx.slope, True, grad_input=dh)
                d_in_transposed.addmm_(
                    x_t.flatten(1), d_flat.T
                )  # the transposed product takes four times as long
                d_bias_b = _sample(d_bias_t, b)
                d_bias_b += dh.sum_to_size(d_bias_b.shape)
                _scatter_taps((matrix_in.T @ d_flat).view_as(x_t), dx[b], tile, taps, -1)
        return (
            dx if visible is None else dx.mul_(visible),
            d_bias,
            d_in_transposed.T.unflatten(1, (taps, -1)).mT,
            d_out_matrix.unflatten(0, (taps, -1)).permute(1, 2, 0),
            None,
            None,
            None,
        )


def _matrices(weight_in: Tensor, weight_out: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the layers as matrices over all taps, (K, N C) and (N H, K)."""
    return weight_in.mT.flatten(1), weight_out.permute(2, 0, 1).flatten(0, 1)


def _tiles(x: Tensor, diagonal: int | None) -> Iterator[Tile]:
    """Yields blocks of rows, each with the keys that its last row attends to."""
    queries, keys = x.shape[2:]
    step = _tile_rows(x)
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        yield slice(start, stop), slice(0, keys if diagonal is None else min(keys, stop + diagonal))


def _tile_rows(x: Tensor) -> int:
    """Returns the number of rows in a tile."""
    return max(1, min(x.shape[2], (PAIRS_CPU if x.device.type == "cpu" else PAIRS_GPU) // x.shape[3]))


def _buffer(x: Tensor, channels: int) -> Tensor:
    """Returns memory for one tile, used for all tiles: allocating it anew takes longer than the work in it."""
    return x.new_empty(channels * _tile_rows(x) * x.shape[3])


def _crop(whole: Tensor, tile: Tile) -> Tensor:
    """Returns the part of a tile, (B, K, r or 1, s or 1); dimensions of size 1 are broadcast."""
    rows, keys = tile
    return whole[
        :, :, rows if whole.shape[2] > 1 else slice(None), keys if whole.shape[3] > 1 else slice(None)
    ]


def _sample(batch: Tensor, b: int) -> Tensor:
    """Returns sample b of a batch, whose only one stands for all if it has size 1."""
    return batch[min(b, len(batch) - 1)]


def _hidden(x_t: Tensor, bias: Tensor, matrix_in: Tensor, slope: float, buffer: Tensor) -> Tensor:
    """Returns the hidden layer (K, r, s) of inputs (N C, r, s), in the buffer."""
    flat = buffer[: len(matrix_in) * x_t[0].numel()].view(len(matrix_in), -1)
    h = flat.view(len(matrix_in), *x_t.shape[1:])
    h.copy_(bias.expand_as(h))
    F.leaky_relu_(flat.addmm_(matrix_in, x_t.flatten(1)), slope)
    return h


def _gather_taps(
    source: Tensor, tile: Tile, taps: int, sign: int, buffer: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Returns (N C, r, s) in the buffer: tap n holds the values sign * (n - N // 2) keys later, or 0 past the ends."""
    rows, width = tile[0], tile[1].stop
    channels, keys = len(source), source.shape[2]
    gathered = buffer[: taps * channels * (rows.stop - rows.start) * width].view(taps * channels, -1, width)
    for part, shift in zip(gathered.chunk(taps), _shifts(taps, sign), strict=True):
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
    return gathered


def _scatter_taps(parts: Tensor, target: Tensor, tile: Tile, taps: int, sign: int) -> None:
    """Adds each tap of a tile to (C, R, S), shifted as in `_gather_taps`."""
    rows, width = tile[0], tile[1].stop
    for part, shift in zip(parts.chunk(taps), _shifts(taps, sign), strict=True):
        start, stop = max(0, -shift), min(target.shape[2], width - shift)
        target[:, rows, start:stop] += part[..., start + shift : stop + shift]


def _shifts(taps: int, sign: int) -> list[int]:
    return [sign * (n - taps // 2) for n in range(taps)]
