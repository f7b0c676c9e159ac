"""Adds relative values around a kernel that does not support them, from its log-sum-exp.

Shaw's a^V has one row for each distance below a clip distance and one for all farther pairs. The weight of a near pair
is exp(logit - lse), with the logits of a few diagonals; the remaining weight belongs to the far row. So any kernel with
a log-sum-exp can be extended without writing out T x S. (On the CPU `dense` is faster: a training step takes 0.91 of
the time of that through SDPA at 256 tokens, an evaluation 0.69 at 1024.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.position.call import AttentionCall, Kernel
from posbench.position.geometry import Geometry, apply_mask
from posbench.position.numerics import autocast_disabled, upcast

# Largest clip distance: with more diagonals, the kernel saves no time.
MAX_CLIP_DISTANCE = 256
# Rows per block of `_products`: the keys that the first row of a block needs are multiplied with all its rows.
BLOCK = 64

# Maps a call to the reason why a kernel does not support it, or None.
WhyUnsupported = Callable[[AttentionCall], str | None]


def with_relative_values(kernel: Kernel, why_unsupported: WhyUnsupported) -> tuple[Kernel, WhyUnsupported]:
    """Returns a kernel that adds relative values around `kernel`, and its `why_unsupported`."""

    def run(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        if call.relative_values is None:
            return kernel(call)
        out, lse = kernel(_without_values(call))
        assert lse is not None
        return (out + _weighted_values(call, lse).to(out.dtype)), lse if call.with_lse else None

    def why_not(call: AttentionCall) -> str | None:
        if call.relative_values is None:
            return why_unsupported(call)
        return _why_unsupported(call) or why_unsupported(_without_values(call))

    return run, why_not


def _without_values(call: AttentionCall) -> AttentionCall:
    return replace(call, relative_values=None, with_lse=True)


def _why_unsupported(call: AttentionCall) -> str | None:
    geo, values = call.geo, call.relative_values
    assert values is not None
    if geo.position_offset is None or geo.index_offset is None:
        return "it cannot add to the values by pair where positions do not run in steps of one"
    if call.bias is not None and call.bias.needs_full_rows:
        return "the bias needs whole rows of logits"
    if values.clip_distance > MAX_CLIP_DISTANCE:
        return (
            f"it cannot add to the values by pair at {values.clip_distance} distances, more than "
            f"{MAX_CLIP_DISTANCE}"
        )
    return None


def _least_distance(geo: Geometry) -> int:
    """Returns the distance of a token to itself: 0 unless queries and keys have different positions."""
    assert geo.position_offset is not None
    assert geo.index_offset is not None
    return geo.position_offset - geo.index_offset


def _weighted_values(call: AttentionCall, lse_BHT: Tensor) -> Tensor:
    """Returns (B, H, T, D): the sum over the keys of weight times relative value."""
    geo, values = call.geo, call.relative_values
    assert values is not None
    least, device = _least_distance(geo), lse_BHT.device
    count = max(0, values.clip_distance - least)  # of diagonals below the clip distance
    with autocast_disabled(lse_BHT):
        table_KD, visible_BHT = upcast(values.table_KD), lse_BHT.isfinite()
        far_1D = table_KD[values.index(torch.full((1,), values.clip_distance, device=device))]
        total_BHT = visible_BHT.to(table_KD.dtype)
        if not count:
            return total_BHT[..., None] * far_1D
        lse_BHT = torch.where(visible_BHT, upcast(lse_BHT), 0)
        weight_BHTN = torch.exp(diagonals(call, count) - lse_BHT[..., None])
        near_ND = table_KD[values.index(torch.arange(least, least + count, device=device).clamp(min=0))]
        return total_BHT[..., None] * far_1D + weight_BHTN @ (near_ND - far_1D)


def diagonals(call: AttentionCall, count: int) -> Tensor:
    """Returns the (B, H, T, N) logits of query i with the keys of indices i, i-1, .., i-N+1; -inf if not visible."""
    geo, before = call.geo, call.geo.index_offset
    assert before is not None
    slot_TN, visible_TN = geo.memo(("diagonals", count), lambda: _slots(geo, before, count))
    for mask in call.masks:
        visible_TN = visible_TN & apply_mask(mask, geo.q_index_T[:, None], geo.k_index_S[slot_TN])
    logit_BHTN = call.scale * _products(upcast(call.q_BHTE), upcast(call.k_BHSE), before, count)
    if call.bias is not None:
        logit_BHTN = logit_BHTN + call.bias.gather(geo, slot_TN)
    return logit_BHTN.masked_fill(~visible_TN, -torch.inf)


def _slots(geo: Geometry, before: int, count: int) -> tuple[Tensor, Tensor]:
    """Returns (T, N) indices into the keys, clamped to those that exist, and booleans: whether the key exists."""
    device, keys = geo.q_index_T.device, len(geo.k_index_S)
    i = torch.arange(len(geo.q_index_T), device=device)[:, None]
    slot_TN = i + before - torch.arange(count, device=device)
    return slot_TN.clamp(0, keys - 1), (slot_TN >= 0) & (slot_TN < keys)


def _products(q_BHTE: Tensor, k_BHSE: Tensor, before: int, count: int) -> Tensor:
    """Returns (B, H, T, N): q_t . k_{t + before - n}, by blocks of rows over the keys that any of them needs."""
    queries, keys = q_BHTE.shape[2], k_BHSE.shape[2]
    blocks = -(-queries // BLOCK)
    q = F.pad(q_BHTE, (0, 0, 0, blocks * BLOCK - queries)).unflatten(2, (blocks, BLOCK))
    # From count - 1 keys before the first query to the last query's own; negative padding cuts keys off.
    k = F.pad(k_BHSE, (0, 0, count - 1 - before, blocks * BLOCK + before - keys))
    product = q @ k.unfold(2, BLOCK + count - 1, BLOCK)
    column = torch.arange(BLOCK, device=q.device)[:, None] + torch.arange(count - 1, -1, -1, device=q.device)
    return product.gather(-1, column.expand(*product.shape[:3], -1, -1)).flatten(2, 3)[:, :, :queries]
