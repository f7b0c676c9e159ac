"""The specification: every pair written out, in float32 or float64, a few query rows at a time.

Memory is chunk x S, not T x S. Every other kernel and every scheme is held to it, values and gradients.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from posbench.attend import Pairs
from posbench.terms import Rows, exact

# Logits held at once, over batch, heads, rows and keys: 16 MiB in float32, about what caches hold.
CHUNK = 1 << 22
# Rows at a time where memory allows for more: they meet no key after the last of them.
STEP = 64


def dense(pairs: Pairs, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """(B, H, T, D) output and (B, H, T) log-sum-exp, always both."""
    batch, heads, queries, _ = pairs.q_BHTE.shape
    # Contiguous once: products over slices of them need no copies.
    k_BHSE, v_BHSD = (exact(x).contiguous() for x in (pairs.k_BHSE, pairs.v_BHSD))
    term = None if pairs.term is None else pairs.term.begin(k_BHSE)
    dtype, pairs = pairs.v_BHSD.dtype, replace(pairs, k_BHSE=k_BHSE, v_BHSD=v_BHSD, term=term)
    rows = max(1, chunk // (max(batch, len(pairs.k_BHSE)) * heads * pairs.k_BHSE.shape[2]))
    # Training recomputes a chunk in the backward pass, or its weights would add up to T x S after all.
    again = torch.is_grad_enabled() and rows < queries
    rows = min(rows, STEP if pairs.geo.ordered else queries)
    parts = []
    # The last rows first: they see the most keys, and what they leave holds the others.
    for start in reversed(range(0, queries, rows)):
        part = slice(start, min(start + rows, queries))
        parts.append(checkpoint(_rows, pairs, part, use_reentrant=False) if again else _rows(pairs, part))
    outs, lses = zip(*reversed(parts), strict=True)
    return torch.cat(outs, 2).to(dtype), torch.cat(lses, 2)


def _rows(pairs: Pairs, rows: slice) -> tuple[Tensor, Tensor]:
    geo = pairs.geo.seen_by(rows)
    q_BHRE = exact(pairs.q_BHTE[:, :, rows]).contiguous()
    k_BHSE, v_BHSD = (whole[:, :, : len(geo.k_index_S)] for whole in (pairs.k_BHSE, pairs.v_BHSD))
    logits = (q_BHRE * pairs.scale) @ k_BHSE.transpose(-1, -2)
    visible = geo.visible(pairs.masks, rows)
    if pairs.term is not None:
        held = Rows(geo, rows, q_BHRE, k_BHSE, pairs.scale, logits, visible)
        logits = logits + pairs.term.added(held).to(logits.dtype)
    logits = logits.masked_fill(~visible, -torch.inf)
    # Not logsumexp and softmax: on a row that sees nothing their gradients are NaN.
    top = logits.detach().amax(-1, keepdim=True)
    weight = torch.exp(logits - torch.where(top.isfinite(), top, 0))
    # Denormal numbers, which steep penalties make by the million, take a CPU many times as long.
    weight = F.threshold(weight, torch.finfo(logits.dtype).tiny ** 0.75, 0.0)
    total = weight.sum(-1, keepdim=True)
    some = total > 0
    total = torch.where(some, total, 1)
    out = weight @ v_BHSD
    if pairs.value is not None:
        out = out + pairs.value.weighted(weight, geo, rows)
    out = out / total
    lse = torch.where(some, top + torch.log(total), -torch.inf).squeeze(-1)
    return out, lse
