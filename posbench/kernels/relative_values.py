"""Values by pair around a kernel that knows none of them: what its log-sum-exp leaves to do.

Shaw's a^V is one row of a table for each of the last few distances, and one for all that are farther. The weight of a
near pair is exp(logit - lse), its logit one of a few diagonals; what these leave of 1 is the weight of the far row. So
any kernel that gives a log-sum-exp runs them, and T x S is written out by nobody. (On the CPU `dense` is faster: a step
takes 0.91 of that through SDPA at 256 tokens, an evaluation 0.69 at 1024.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.position.call import AttentionCall, Kernel
from posbench.position.geometry import Geometry
from posbench.position.numerics import autocast_disabled, upcast

# Distances told apart: more, and the diagonals cost what a kernel was to save.
MOST = 256
# Rows of a block: the keys before it that its first row needs are multiplied with all of them.
BLOCK = 64

WhyUnsupported = Callable[[AttentionCall], str | None]


def with_relative_values(kernel: Kernel, why_unsupported: WhyUnsupported) -> tuple[Kernel, WhyUnsupported]:
    """A kernel without values by pair, and why it cannot run some pairs, with them."""

    def run(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        if call.relative_values is None:
            return kernel(call)
        out, lse = kernel(_without(call))
        assert lse is not None
        return (out + _added(call, lse).to(out.dtype)), lse if call.with_lse else None

    def refused(call: AttentionCall) -> str | None:
        if call.relative_values is None:
            return why_unsupported(call)
        return _why_unsupported(call) or why_unsupported(_without(call))

    return run, refused


def _without(call: AttentionCall) -> AttentionCall:
    return replace(call, relative_values=None, with_lse=True)


def _why_unsupported(call: AttentionCall) -> str | None:
    geo, value = call.geo, call.relative_values
    assert value is not None
    if geo.position_offset is None or geo.index_offset is None:
        return "it cannot add to the values by pair where positions do not run in steps of one"
    if call.bias is not None and call.bias.needs_full_rows:
        return "it cannot give a term its rows of logits"
    if value.clip_distance > MOST:
        return f"it cannot add to the values by pair at {value.clip_distance} distances, more than {MOST}"
    return None


def _count(geo: Geometry, near: int) -> int:
    """How many of the last keys may be of a class of their own."""
    return max(0, near - _least(geo))


def _least(geo: Geometry) -> int:
    """The distance at which a query's own place is felt: 0 unless its positions are moved against the keys'."""
    assert geo.position_offset is not None
    assert geo.index_offset is not None
    return geo.position_offset - geo.index_offset


def _added(call: AttentionCall, lse_BHT: Tensor) -> Tensor:
    """(B, H, T, D): the sum of each pair's weight times its row."""
    geo, value = call.geo, call.relative_values
    assert value is not None
    count, device = _count(geo, value.clip_distance), lse_BHT.device
    with autocast_disabled(lse_BHT):
        table_KD, seen_BHT = upcast(value.table_KD), lse_BHT.isfinite()
        far_1D = table_KD[value.index(torch.full((1,), value.clip_distance, device=device))]
        weight_BHT = seen_BHT.to(table_KD.dtype)
        if not count:
            return weight_BHT[..., None] * far_1D
        lse_BHT = torch.where(seen_BHT, upcast(lse_BHT), 0)
        weight_BHTN = torch.exp(diagonals(call, count) - lse_BHT[..., None])
        first = _least(geo)
        near_ND = table_KD[value.index(torch.arange(first, first + count, device=device).clamp(min=0))]
        return weight_BHT[..., None] * far_1D + weight_BHTN @ (near_ND - far_1D)


def diagonals(call: AttentionCall, count: int) -> Tensor:
    """(B, H, T, N) logits of each query with the key of its own place, the one before, and so on; -inf if hidden."""
    geo, before = call.geo, call.geo.index_offset
    assert before is not None
    slot_TN, visible_TN = geo.memo(("diagonals", count), lambda: _slots(geo, before, count))
    for mask in call.masks:
        visible_TN = visible_TN & mask(geo.q_index_T[:, None], geo.k_index_S[slot_TN])
    logit_BHTN = call.scale * _products(upcast(call.q_BHTE), upcast(call.k_BHSE), before, count)
    if call.bias is not None:
        logit_BHTN = logit_BHTN + call.bias.gather(geo, slot_TN)
    return logit_BHTN.masked_fill(~visible_TN, -torch.inf)


def _slots(geo: Geometry, before: int, count: int) -> tuple[Tensor, Tensor]:
    """(T, N) which key, some key where there is none, and whether there is one that causality shows."""
    device, keys = geo.q_index_T.device, len(geo.k_index_S)
    i = torch.arange(len(geo.q_index_T), device=device)[:, None]
    slot_TN = i + before - torch.arange(count, device=device)
    return slot_TN.clamp(0, keys - 1), (slot_TN >= 0) & (slot_TN < keys)


def _products(q_BHTE: Tensor, k_BHSE: Tensor, before: int, count: int) -> Tensor:
    """(B, H, T, N) q_i . k_{i + before - n}, by blocks of rows over the keys that any of these needs."""
    queries, keys = q_BHTE.shape[2], k_BHSE.shape[2]
    blocks = -(-queries // BLOCK)
    q = F.pad(q_BHTE, (0, 0, 0, blocks * BLOCK - queries)).unflatten(2, (blocks, BLOCK))
    # Keys count - 1 before the first query up to the last one's own; what is negative is cut off.
    k = F.pad(k_BHSE, (0, 0, count - 1 - before, blocks * BLOCK + before - keys))
    product = q @ k.unfold(2, BLOCK + count - 1, BLOCK)
    column = torch.arange(BLOCK, device=q.device)[:, None] + torch.arange(count - 1, -1, -1, device=q.device)
    return product.gather(-1, column.expand(*product.shape[:3], -1, -1)).flatten(2, 3)[:, :, :queries]
