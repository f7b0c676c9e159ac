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
        shared: (B or 1, C', R, S), further channels, with size 1 the same for all sequences; None without them.
        weight_in, bias_in: (K, C + C', N) and (K,), the first layer.
        weight_out: (H, K, N), the second layer.
        slope: negative slope of the leaky ReLU; 0 is a ReLU.
        visible: (R, S), a factor on all channels and on the hidden layer, or None.
        diagonal: row r attends to no key after r + diagonal, and its outputs there are undefined; None for all keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shared: Tensor | None,
        weight_in: Tensor,
        bias_in: Tensor,
        weight_out: Tensor,
        slope: float,
        visible: Tensor | None = None,
        diagonal: int | None = None,
    ) -> Tensor:
        ctx.save_for_backward(x, shared, weight_in, bias_in, weight_out, visible)
        ctx.slope, ctx.diagonal = slope, diagonal
        taps, out = weight_in.shape[2], x.new_zeros(len(x), weight_out.shape[0], *x.shape[2:])
        matrix_in, matrix_out = _matrices(x.shape[1], weight_in, bias_in, weight_out)
        x_buffer, h_buffer = _buffer(x, matrix_in.shape[1]), _buffer(x, len(matrix_in))
        for tile in _tiles(x, diagonal):
            for b, inputs in _inputs(x, shared, tile, taps, visible, x_buffer):
                h = _hidden(inputs, matrix_in, slope, h_buffer)
                y_t = (matrix_out @ h.flatten(1)).view(-1, *h.shape[1:])
                # A factor on a pair's hidden layer is one on the second layer's output, which is narrower.
                _scatter_taps(y_t if visible is None else y_t.mul_(visible[tile]), out[b], tile, taps, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, shared, weight_in, bias_in, weight_out, visible = ctx.saved_tensors
        taps, own = weight_in.shape[2], weight_in.shape[2] * x.shape[1]
        matrix_in, matrix_out = _matrices(x.shape[1], weight_in, bias_in, weight_out)
        dx, d_shared = torch.zeros_like(x), None if shared is None else torch.zeros_like(shared)
        d_in_transposed, d_out_matrix = matrix_out.new_zeros(matrix_in.T.shape), torch.zeros_like(matrix_out)
        x_buffer, dy_buffer = _buffer(x, matrix_in.shape[1]), _buffer(x, len(matrix_out))
        h_buffer, dh_buffer = _buffer(x, len(matrix_in)), _buffer(x, len(matrix_in))
        for tile in _tiles(x, ctx.diagonal):
            for b, inputs in _inputs(x, shared, tile, taps, visible, x_buffer):
                dy_t = _gather_taps(d_out[b], tile, taps, -1, dy_buffer)
                dy_t = (dy_t if visible is None else dy_t.mul_(visible[tile])).flatten(1)
                h = _hidden(inputs, matrix_in, ctx.slope, h_buffer)
                dh = dh_buffer[: h.numel()].view_as(h)
                flat, d_flat = h.flatten(1), dh.flatten(1)
                d_out_matrix.addmm_(dy_t, flat.T)
                torch.mm(matrix_out.T, dy_t, out=d_flat)
                torch.ops.aten.leaky_relu_backward(dh, h, ctx.slope, True, grad_input=dh)
                # The transposed product takes four times as long.
                d_in_transposed.addmm_(inputs.flatten(1), d_flat.T)
                d_inputs = (matrix_in.T[:-1] @ d_flat).view(-1, *h.shape[1:])
                _scatter_taps(d_inputs[:own], dx[b], tile, taps, -1)
                if d_shared is not None:
                    _scatter_taps(d_inputs[own:], _sample(d_shared, b), tile, taps, -1)
        for gradient in (dx, d_shared):
            if visible is not None and gradient is not None:
                gradient.mul_(visible)
        d_in = d_in_transposed.T
        parts = [part.unflatten(1, (taps, -1)).mT for part in (d_in[:, :own], d_in[:, own:-1])]
        d_taps = d_out_matrix.unflatten(0, (taps, -1)).permute(1, 2, 0)
        return dx, d_shared, torch.cat(parts, 1), d_in[:, -1], d_taps, None, None, None


def _matrices(own: int, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the layers as matrices, (K, N C + N C' + 1) and (N H, K); the last column of the first is its bias."""
    parts = [weight_in[:, :own].mT.flatten(1), weight_in[:, own:].mT.flatten(1), bias_in[:, None]]
    return torch.cat(parts, 1), weight_out.permute(2, 0, 1).flatten(0, 1)


def _inputs(
    x: Tensor, shared: Tensor | None, tile: Tile, taps: int, visible: Tensor | None, buffer: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Yields for each sequence its index and inputs of the first layer, (N C + N C' + 1, r, s), in the buffer."""
    own, further = taps * x.shape[1], 0 if shared is None else taps * shared.shape[1]
    pairs = (tile[0].stop - tile[0].start) * tile[1].stop
    own_part, shared_part, ones = buffer[: (own + further + 1) * pairs].split(
        [own * pairs, further * pairs, pairs]
    )
    ones.fill_(1.0)
    inputs = buffer[: (own + further + 1) * pairs].view(own + further + 1, -1, tile[1].stop)
    for b in range(len(x)):
        _gather_taps(x[b], tile, taps, 1, own_part, visible)
        if shared is not None and b < len(shared):
            _gather_taps(shared[b], tile, taps, 1, shared_part, visible)
        yield b, inputs


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


def _sample(batch: Tensor, b: int) -> Tensor:
    """Returns sample b of a batch, whose only one stands for all if it has size 1."""
    return batch[min(b, len(batch) - 1)]


def _hidden(inputs: Tensor, matrix_in: Tensor, slope: float, buffer: Tensor) -> Tensor:
    """Returns the hidden layer (K, r, s) of inputs, in the buffer."""
    flat = buffer[: len(matrix_in) * inputs[0].numel()].view(len(matrix_in), -1)
    F.leaky_relu_(torch.mm(matrix_in, inputs.flatten(1), out=flat), slope)
    return flat.view(len(matrix_in), *inputs.shape[1:])


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
