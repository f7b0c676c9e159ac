"""The CPU's fused attention with an additive bias that is trained.

torch's own falls back to writing out B x H x T x S several times when the mask asks for a gradient. Here the
forward pass is the fused one, and the backward pass goes over the rows a few at a time, no key after the last
of them, and sums the logits' gradient over what the bias is broadcast over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 64


class Biased(torch.autograd.Function):
    """softmax(scale * q . k + bias) v, causal; bias (B or 1, H or 1, T or 1, S) in the dtype of q, and T == S."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = fused(q, k, v, 0.0, True, attn_mask=bias, scale=scale)
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, lse = ctx.saved_tensors
        batch, heads, length, _ = q.shape
        delta = (gradient * out).sum(-1).flatten(0, 1)[..., None]
        lse = lse.flatten(0, 1)[..., None]
        q, k, v, gradient = (x.contiguous().flatten(0, 1) for x in (q * ctx.scale, k, v, gradient))
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dbias = torch.zeros_like(bias)
        # Denormal numbers, which steep penalties make by the million, take a CPU many times as long.
        least = torch.finfo(q.dtype).tiny ** 0.75
        future = torch.full((ROWS, ROWS), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
        for start in range(0, length, ROWS):
            stop = min(start + ROWS, length)
            rows, keys = slice(start, stop), slice(0, stop)
            some = slice(0, 1) if bias.shape[2] == 1 else rows
            weight = torch.bmm(q[:, rows], k[:, keys].mT)
            weight.unflatten(0, (batch, heads)).add_(bias[:, :, some, keys])
            weight[:, :, start:].add_(future[: stop - start, : stop - start])
            torch.threshold_(weight.sub_(lse[:, rows]).exp_(), least, 0.0)
            dv[:, keys].baddbmm_(weight.mT, gradient[:, rows])
            ds = torch.bmm(gradient[:, rows], v[:, keys].mT).sub_(delta[:, rows]).mul_(weight)
            dq[:, rows] = torch.bmm(ds, k[:, keys])
            dk[:, keys].baddbmm_(ds.mT, q[:, rows])
            whole = ds.unflatten(0, (batch, heads))
            dbias[:, :, some, keys] += whole.sum_to_size(dbias[:, :, some, keys].shape)
        split = (batch, heads)
        return (
            dq.mul_(ctx.scale).unflatten(0, split),
            dk.unflatten(0, split),
            dv.unflatten(0, split),
            dbias,
            None,
        )
