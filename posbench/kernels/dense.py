"""The reference kernel: every pair written out, in float32 or float64, a few query rows at a time.

Its memory is rows x S, not T x S. Tests compare all other kernels and all schemes with it, values and gradients.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from posbench.position.biases import QueryRows, RowwiseBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry
from posbench.position.numerics import autocast_disabled, upcast

# Logits in memory at once, over batch, heads, rows and keys: 16 MiB in float32, about the size of CPU caches.
CHUNK = 1 << 22
# Largest number of rows at a time: keys after the last of them are not computed.
STEP = 64


def dense(call: AttentionCall, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Returns the (B, H, T, D) output and, always, the (B, H, T) log-sum-exp.

    Args:
        chunk: largest number of logits in memory at once.
    """
    with autocast_disabled(call.q_BHTE):
        return _dense(call, chunk)


def _dense(call: AttentionCall, chunk: int) -> tuple[Tensor, Tensor]:
    batch, heads, queries, _ = call.q_BHTE.shape
    dtype, call = call.v_BHSD.dtype, _prepare(call)
    rows = max(1, chunk // (max(batch, len(call.k_BHSE)) * heads * call.k_BHSE.shape[2]))
    # The backward pass recomputes each chunk: saved weights would add up to T x S.
    recompute = torch.is_grad_enabled() and rows < queries
    rows = min(rows, STEP if call.geo.ordered else queries)
    parts = []
    # The last rows first: they see the most keys, so that the memory they free suffices for all others.
    for start in reversed(range(0, queries, rows)):
        part = slice(start, min(start + rows, queries))
        parts.append(checkpoint(_rows, call, part, use_reentrant=False) if recompute else _rows(call, part))
    outs, lses = zip(*reversed(parts), strict=True)
    return torch.cat(outs, 2).to(dtype), torch.cat(lses, 2)


def weights(call: AttentionCall, rows: slice) -> tuple[Tensor, Tensor]:
    """Returns the (B, H, R, S) attention weights of `rows` and their (B, H, R) log-sum-exp.

    S counts the keys that causality lets the rows see. The weights are the output for values that are unit
    vectors, one per key, so that `merge` applies to them as to outputs.
    """
    with autocast_disabled(call.q_BHTE):
        _, weight, total, lse = _weights(_prepare(call), rows)
        return weight / total, lse


def _prepare(call: AttentionCall) -> AttentionCall:
    """Returns the call with keys and values upcast and the bias precomputed."""
    # Contiguous, so that products over slices of them need no copies.
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
    """Returns the geometry of the keys that the rows may see, exp(logits - max), its sum and the log-sum-exp."""
    geo = call.geo.trim_to_visible_keys(rows)
    q_BHRE = upcast(call.q_BHTE[:, :, rows]).contiguous()
    k_BHSE = call.k_BHSE[:, :, : len(geo.k_index_S)]
    visible = geo.visible(call.masks, rows)
    if isinstance(call.bias, RowwiseBias) and call.bias.is_logit:
        nothing = q_BHRE.new_empty(0)
        query_rows = QueryRows(geo, rows, q_BHRE, k_BHSE, call.scale, nothing, visible)
        logits = call.bias.from_rows(query_rows).to(q_BHRE.dtype)
    else:
        logits = (q_BHRE * call.scale) @ k_BHSE.transpose(-1, -2)
        if call.bias is not None:
            query_rows = QueryRows(geo, rows, q_BHRE, k_BHSE, call.scale, logits, visible)
            logits = logits + call.bias.value_from_rows(query_rows).to(logits.dtype)
    weight, top = MaskedExp.apply(logits, visible)
    total = weight.sum(-1, keepdim=True)
    some = total > 0
    total = torch.where(some, total, 1)
    lse = torch.where(some, top + torch.log(total), -torch.inf).squeeze(-1)
    return geo, weight, total, lse


class MaskedExp(torch.autograd.Function):
    """exp(logits - max) where visible, else 0, and the (B, H, R, 1) max, -inf in rows that see no key.

    Overwrites the logits. Its backward pass is one product, where autograd needs five passes; the gradients of
    logsumexp and softmax are NaN in rows that see no key.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        # torch.compile does not support mark_dirty, and finds in-place operations by itself.
        compiling = torch.compiler.is_compiling()
        hidden = ~visible
        logits = (
            logits.masked_fill(hidden, -torch.inf) if compiling else logits.masked_fill_(hidden, -torch.inf)
        )
        top = logits.amax(-1, keepdim=True)
        # On a CPU, denormal numbers and exponentials that underflow take hundreds of times as long as others;
        # steep penalties produce millions of them.
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
