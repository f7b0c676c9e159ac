"""The CPU's fused attention with gradients of an additive bias and of the log-sum-exp.

If the mask requires a gradient, or values are narrower than queries, torch falls back to writing out B x H x T x S
several times; its log-sum-exp has no gradient. Here the forward pass is the fused one. So is the backward pass if the
bias requires no gradient. Otherwise it runs in tiles of as many rows and heads as fit the cache of a core, without keys
after the last row, and sums the gradient of the logits over the dimensions in which the bias is broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits and rows per tile: 1 MiB in float32; a backward pass holds two.
TILE, ROWS = 1 << 18, 128


class BiasedAttention(torch.autograd.Function):
    """softmax(scale * q . k + bias) v and its log-sum-exp, causal, T == S; all in one dtype.

    A row without a visible key gives zeros without a gradient; the caller sets its log-sum-exp.

    Args:
        q, k: (B, H, T, E).
        v: (B, H, T, D), D <= E.
        bias: (B or 1, H or 1, T or 1, S), or None.
        scale: factor on q . k.

    Returns:
        (B, H, T, D) output and (B, H, T) log-sum-exp.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        wide = F.pad(v, (0, q.shape[-1] - v.shape[-1]))  # the kernel supports one head dimension only
        out, lse = fused(q, k, wide, 0.0, True, attn_mask=bias, scale=scale)
        out = out[..., : v.shape[-1]]
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.scale = scale
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, lse = ctx.saved_tensors
        scale, length = ctx.scale, q.shape[2]
        if not ctx.needs_input_grad[3] and q.shape == v.shape and not _may_underflow(bias):
            shifted = _shift_output(out, d_out, d_lse)
            if shifted is not None:
                fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
                grads = fused(d_out, q, k, v, shifted, lse, 0.0, True, attn_mask=bias, scale=scale)
                return (*grads, None, None)
        dq, dk, dv = (_empty_like(x) for x in (q, k, v))
        dbias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        # On a CPU, denormal numbers take hundreds of times as long; steep penalties produce millions of them.
        low = 0.75 * math.log(torch.finfo(q.dtype).tiny)
        least = 1.001 * math.exp(low)
        future = q.new_full((ROWS, ROWS), -torch.inf).triu_(1)
        buffer: Tensor | None = None
        for tile in _tiles(*q.shape[:3]):
            here = dq[tile].shape[:2]
            q_t, k_t, v_t, g_t = (x[tile].flatten(0, 1) for x in (q, k, v, d_out))
            delta = (g_t * out[tile].flatten(0, 1)).sum(-1) - d_lse[tile].flatten(0, 1)
            shift, delta = -lse[tile][..., None], delta[..., None]
            if buffer is None:  # the first tile is the largest
                buffer = q.new_empty(2, len(q_t) * min(ROWS, length) * length)
            totals: tuple[Tensor, Tensor] | None = None
            # The last rows first: they see all keys, so that their buffers suffice for all others.
            for stop in range(length, 0, -ROWS):
                rows, keys = slice(max(stop - ROWS, 0), stop), slice(0, stop)
                count = stop - rows.start
                weight, ds = buffer[:, : len(q_t) * count * stop].view(2, len(q_t), count, stop)
                weight_4d = weight.unflatten(0, here)
                if bias is None:
                    weight_4d.copy_(shift[:, :, rows].expand_as(weight_4d))
                else:
                    part = (*_broadcast(bias, tile), slice(None) if bias.shape[2] == 1 else rows, keys)
                    torch.add(bias[part], shift[:, :, rows], out=weight_4d)
                weight.baddbmm_(q_t[:, rows], k_t[:, keys].mT, alpha=scale)
                weight[:, :, rows.start :].add_(future[:count, :count])
                # An exponential that underflows, even of -inf, is as slow: clamp before and zero after it.
                torch.threshold_(torch.threshold_(weight, low, low).exp_(), least, 0.0)
                torch.bmm(g_t[:, rows], v_t[:, keys].mT, out=ds)
                ds.sub_(delta[:, rows]).mul_(weight)
                dq[tile][:, :, rows] = torch.bmm(ds, k_t[:, keys]).mul_(scale).unflatten(0, here)
                partials = torch.bmm(ds.mT, q_t[:, rows]), torch.bmm(weight.mT, g_t[:, rows])
                if totals is None:
                    totals = partials
                else:
                    for total, partial in zip(totals, partials, strict=True):
                        total[:, keys] += partial
                if dbias is not None:
                    dbias[part] += ds.unflatten(0, here).sum_to_size(dbias[part].shape)
            assert totals is not None
            dk[tile], dv[tile] = (
                totals[0].mul_(scale).unflatten(0, here),
                totals[1].unflatten(0, here),
            )
        return dq, dk, dv, dbias, None


def _may_underflow(bias: Tensor | None) -> bool:
    """Whether weights may underflow, which makes the fused backward pass several times slower."""
    return bias is not None and bool(((bias < -64) & (bias > -torch.inf)).any())


def _shift_output(out: Tensor, d_out: Tensor, d_lse: Tensor) -> Tensor | None:
    """Returns an output from which the fused backward pass computes the gradient through the log-sum-exp as well.

    The backward pass uses the output only to subtract d_out . out from the gradient of the weights of a row. With
    the shifted output it subtracts d_out . out - d_lse. None if d_out is zero in a row where d_lse is not.
    """
    size = d_out.square().sum(-1)
    least = torch.finfo(size.dtype).tiny ** 0.75
    if ((size < least) & (d_lse != 0)).any():
        return None
    return torch.addcmul(out, d_out, (d_lse / size.clamp(min=least))[..., None], value=-1)


def _tiles(batch: int, heads: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Yields slices of sequences and heads: several sequences, or some heads of one, so that tiles are views."""
    matrices = max(1, TILE // (min(ROWS, length) * length))
    tile_batch, tile_heads = max(1, matrices // heads), min(matrices, heads)
    for b in range(0, batch, tile_batch):
        for h in range(0, heads, tile_heads):
            yield slice(b, b + tile_batch), slice(h, h + tile_heads)


def _broadcast(bias: Tensor, tile: tuple[slice, slice]) -> tuple[slice, ...]:
    """Returns the slices of a tile in a bias that may be broadcast over sequences or heads."""
    return tuple(slice(None) if size == 1 else part for size, part in zip(bias.shape[:2], tile, strict=True))


def _empty_like(x: Tensor) -> Tensor:
    """Returns memory for a gradient, laid out as projections are, tokens before heads."""
    return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)
