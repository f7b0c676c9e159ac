"""The specification: every pair written out, in float32 or float64, a few query rows at a time.

Memory is chunk x S, not T x S. Every other kernel and every scheme is held to it, values and gradients.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from posbench.position.biases import QueryRows
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry
from posbench.position.numerics import autocast_disabled, upcast

# Logits held at once, over batch, heads, rows and keys: 16 MiB in float32, about what caches hold.
CHUNK = 1 << 22
# Rows at a time where memory allows for more: they meet no key after the last of them.
STEP = 64


def dense(call: AttentionCall, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """(B, H, T, D) output and (B, H, T) log-sum-exp, always both."""
    with autocast_disabled(call.q_BHTE):  # autocast would have the products in its own precision
        return _dense(call, chunk)


def _dense(call: AttentionCall, chunk: int) -> tuple[Tensor, Tensor]:
    batch, heads, queries, _ = call.q_BHTE.shape
    dtype, call = call.v_BHSD.dtype, _begun(call)
    rows = max(1, chunk // (max(batch, len(call.k_BHSE)) * heads * call.k_BHSE.shape[2]))
    # Training recomputes a chunk in the backward pass, or its weights would add up to T x S after all.
    again = torch.is_grad_enabled() and rows < queries
    rows = min(rows, STEP if call.geo.ordered else queries)
    parts = []
    # The last rows first: they see the most keys, and what they leave holds the others.
    for start in reversed(range(0, queries, rows)):
        part = slice(start, min(start + rows, queries))
        parts.append(checkpoint(_rows, call, part, use_reentrant=False) if again else _rows(call, part))
    outs, lses = zip(*reversed(parts), strict=True)
    return torch.cat(outs, 2).to(dtype), torch.cat(lses, 2)


def weights(call: AttentionCall, rows: slice) -> tuple[Tensor, Tensor]:
    """(B, H, R, S) weights of some rows on the keys that they may see, and their (B, H, R) log-sum-exp.

    They are the output for values that are unit vectors, one a key: what merges outputs merges them too.
    """
    with autocast_disabled(call.q_BHTE):
        _, weight, total, lse = _weights(_begun(call), rows)
        return weight / total, lse


def _begun(call: AttentionCall) -> AttentionCall:
    """What all rows share, computed once."""
    # Contiguous once: products over slices of them need no copies.
    k_BHSE, v_BHSD = (upcast(x).contiguous() for x in (call.k_BHSE, call.v_BHSD))
    bias = None if call.bias is None else call.bias.precompute(k_BHSE)
    return replace(call, k_BHSE=k_BHSE, v_BHSD=v_BHSD, bias=bias)


def _rows(call: AttentionCall, rows: slice) -> tuple[Tensor, Tensor]:
    geo, weight, total, lse = _weights(call, rows)
    out = weight @ call.v_BHSD[:, :, : len(geo.k_index_S)]
    if call.relative_values is not None:
        out = out + call.relative_values.weighted(weight, geo, rows)
    return out / total, lse


def _weights(call: AttentionCall, rows: slice) -> tuple[Geometry, Tensor, Tensor, Tensor]:
    """The geometry of the keys that the rows may see, (B, H, R, S) exp(logits - max), its sum, the log-sum-exp."""
    geo = call.geo.trim_to_visible_keys(rows)
    q_BHRE = upcast(call.q_BHTE[:, :, rows]).contiguous()
    k_BHSE = call.k_BHSE[:, :, : len(geo.k_index_S)]
    logits = (q_BHRE * call.scale) @ k_BHSE.transpose(-1, -2)
    visible = geo.visible(call.masks, rows)
    if call.bias is not None:
        held = QueryRows(geo, rows, q_BHRE, k_BHSE, call.scale, logits, visible)
        logits = logits + call.bias.value_from_rows(held).to(logits.dtype)
    weight, top = Exponentials.apply(logits, visible)
    total = weight.sum(-1, keepdim=True)
    some = total > 0
    total = torch.where(some, total, 1)
    lse = torch.where(some, top + torch.log(total), -torch.inf).squeeze(-1)
    return geo, weight, total, lse


class Exponentials(torch.autograd.Function):
    """exp(logits - max) of what is visible, 0 elsewhere, and the (B, H, R, 1) max, -inf where nothing is.

    Of logits that nobody else needs: in their place. One pass back, where autograd takes five; not logsumexp and
    softmax, whose gradients are NaN on a row that sees nothing.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        compiling = (
            torch.compiler.is_compiling()
        )  # it reads no mark_dirty, and finds by itself what can go in place
        hidden = ~visible
        logits = (
            logits.masked_fill(hidden, -torch.inf) if compiling else logits.masked_fill_(hidden, -torch.inf)
        )
        top = logits.amax(-1, keepdim=True)
        # Denormal numbers, which steep penalties make by the million, take a CPU hundreds of times as long, and
        # so does the exponential that underflows.
        low = 0.75 * math.log(torch.finfo(logits.dtype).tiny)
        torch.threshold_(logits.sub_(torch.where(top.isfinite(), top, 0)), low, low).exp_()
        weight = torch.threshold_(logits, 1.001 * math.exp(low), 0.0)
        if not compiling:
            ctx.mark_dirty(weight)
        ctx.mark_non_differentiable(top)
        ctx.save_for_backward(weight)
        return weight, top

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient * weight, None
