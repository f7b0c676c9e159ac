"""The CPU's fused attention, with gradients that torch's own does not give: of an additive bias, of the log-sum-exp.

Where the mask asks for a gradient, or values are narrower than queries, torch falls back to writing out
B x H x T x S several times; its log-sum-exp has no gradient. Here the forward pass is the fused one. So is the
backward pass where the bias asks for none; else it goes over tiles, as many rows of as many heads as a core's
cache holds, no key after the last row, and sums the logits' gradient over what the bias is broadcast over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits of a tile, and rows of it: a MiB in float32, of which a backward pass holds two.
TILE, ROWS = 1 << 18, 128


class BiasedAttention(torch.autograd.Function):
    """softmax(scale * q . k + bias) v and its log-sum-exp, causal, T == S; all in one dtype.

    q, k (B, H, T, E), v (B, H, T, D) with D <= E, bias (B or 1, H or 1, T or 1, S) or None. A row that sees
    nothing gives zeros and has no gradient; its log-sum-exp is for the caller to set.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        wide = F.pad(v, (0, q.shape[-1] - v.shape[-1]))  # the fused kernel knows one dimension only
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
        if not ctx.needs_input_grad[3] and q.shape == v.shape and not _steep(bias):
            moved = _moved(out, d_out, d_lse)
            if moved is not None:
                fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
                grads = fused(d_out, q, k, v, moved, lse, 0.0, True, attn_mask=bias, scale=scale)
                return (*grads, None, None)
        dq, dk, dv = (_alike(x) for x in (q, k, v))
        dbias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        # Denormal numbers, which steep penalties make by the million, take a CPU hundreds of times as long.
        low = 0.75 * math.log(torch.finfo(q.dtype).tiny)
        least = 1.001 * math.exp(low)
        future = q.new_full((ROWS, ROWS), -torch.inf).triu_(1)
        held: Tensor | None = None
        for tile in _tiles(*q.shape[:3]):
            here = dq[tile].shape[:2]
            q_t, k_t, v_t, g_t = (x[tile].flatten(0, 1) for x in (q, k, v, d_out))
            delta = (g_t * out[tile].flatten(0, 1)).sum(-1) - d_lse[tile].flatten(0, 1)
            shift, delta = -lse[tile][..., None], delta[..., None]
            if held is None:  # the first tile is the largest
                held = q.new_empty(2, len(q_t) * min(ROWS, length) * length)
            sums: tuple[Tensor, Tensor] | None = None
            # The last rows first: they see all keys, and what they leave holds the others.
            for stop in range(length, 0, -ROWS):
                rows, keys = slice(max(stop - ROWS, 0), stop), slice(0, stop)
                count = stop - rows.start
                weight, ds = held[:, : len(q_t) * count * stop].view(2, len(q_t), count, stop)
                whole = weight.unflatten(0, here)
                if bias is None:
                    whole.copy_(shift[:, :, rows].expand_as(whole))
                else:
                    part = (*_broadcast(bias, tile), slice(None) if bias.shape[2] == 1 else rows, keys)
                    torch.add(bias[part], shift[:, :, rows], out=whole)
                weight.baddbmm_(q_t[:, rows], k_t[:, keys].mT, alpha=scale)
                weight[:, :, rows.start :].add_(future[:count, :count])
                # The exponential of what underflows, minus infinity even, is as slow: never ask for it.
                torch.threshold_(torch.threshold_(weight, low, low).exp_(), least, 0.0)
                torch.bmm(g_t[:, rows], v_t[:, keys].mT, out=ds)
                ds.sub_(delta[:, rows]).mul_(weight)
                dq[tile][:, :, rows] = torch.bmm(ds, k_t[:, keys]).mul_(scale).unflatten(0, here)
                both = torch.bmm(ds.mT, q_t[:, rows]), torch.bmm(weight.mT, g_t[:, rows])
                if sums is None:
                    sums = both
                else:
                    for whole_t, part_t in zip(sums, both, strict=True):
                        whole_t[:, keys] += part_t
                if dbias is not None:
                    dbias[part] += ds.unflatten(0, here).sum_to_size(dbias[part].shape)
            assert sums is not None
            dk[tile], dv[tile] = sums[0].mul_(scale).unflatten(0, here), sums[1].unflatten(0, here)
        return dq, dk, dv, dbias, None


def _steep(bias: Tensor | None) -> bool:
    """Whether weights may underflow, which takes the fused backward pass several times as long."""
    return bias is not None and bool(((bias < -64) & (bias > -torch.inf)).any())


def _moved(out: Tensor, d_out: Tensor, d_lse: Tensor) -> Tensor | None:
    """The output for which the fused backward pass gives the gradient of the log-sum-exp as well.

    It reads the output in one place: each row takes d_out . out from the gradient of its weights, where d_lse is
    to be added. None if a row has a gradient of its log-sum-exp alone, and no direction to move in.
    """
    size = d_out.square().sum(-1)
    least = torch.finfo(size.dtype).tiny ** 0.75
    if ((size < least) & (d_lse != 0)).any():
        return None
    return torch.addcmul(out, d_out, (d_lse / size.clamp(min=least))[..., None], value=-1)


def _tiles(batch: int, heads: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Sequences and heads at a time: several sequences, or some heads of one, which are views."""
    most = max(1, TILE // (min(ROWS, length) * length))
    together, some = max(1, most // heads), min(most, heads)
    for b in range(0, batch, together):
        for h in range(0, heads, some):
            yield slice(b, b + together), slice(h, h + some)


def _broadcast(bias: Tensor, tile: tuple[slice, slice]) -> tuple[slice, ...]:
    """The tile of a bias that may be the same for all sequences or heads."""
    return tuple(slice(None) if size == 1 else part for size, part in zip(bias.shape[:2], tile, strict=True))


def _alike(x: Tensor) -> Tensor:
    """Room for a gradient, laid out as projections are, tokens before heads."""
    return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)
