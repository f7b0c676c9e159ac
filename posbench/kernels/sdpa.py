"""torch.nn.functional.scaled_dot_product_attention, with bias and masks as one additive mask.

It does not support relative values, and returns a log-sum-exp on the CPU only. Where torch has no gradient, or writes
out every pair for it (learned biases, regions, changed denominators), training on the CPU runs `BiasedAttention`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.kernels.cpu.biased import BiasedAttention
from posbench.kernels.cpu.mask_pruning import (
    BLOCK,
    beyond_window_only,
    is_mostly_hidden,
    prune_masked_keys,
    shift_to_causal,
)
from posbench.kernels.sdpa_backends import SDPA_AUTOTUNER, tunable
from posbench.kernels.shared_context import fold_sequences, is_shared_context
from posbench.position.biases import DistanceBias, SeparableBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry

# Largest size of an additive mask that is written out at once in evaluation: 64 MiB in float32.
MASK = 1 << 24
# Largest number of keys, and largest value in nats, for which a separable bias is passed as its column alone. The
# column may be a cumulative sum, whose differences float32 rounds too coarsely for more.
MAX_COLUMN_KEYS, MAX_COLUMN = 2048, 4096


def why_unsupported(call: AttentionCall) -> str | None:
    """Returns the reason why this kernel does not support `call`, or None."""
    if call.bias is not None and call.bias.needs_full_rows:
        return "the bias needs whole rows of logits"
    if call.relative_values is not None:
        return "it cannot add to the values by pair"
    if call.with_lse and call.q_BHTE.device.type != "cpu":
        return "regions and changed denominators need its log-sum-exp, which it gives on the CPU only"
    if call.with_lse and call.q_BHTE.shape[-1] < call.v_BHSD.shape[-1]:
        return "its log-sum-exp needs queries no narrower than values"
    # Not requires_grad of q, k and v: the bias or the denominator may be the only one that is trained.
    if call.with_lse and torch.is_grad_enabled() and not _supports_biased(call):
        return "its log-sum-exp has a gradient in float32 and float64 only, where all tokens of a text are queries"
    return None


def sdpa(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """Returns the (B, H, T, D) output and the (B, H, T) log-sum-exp, or None without `call.with_lse`."""
    attention_bias, geo, dtype = call.bias, call.geo, call.q_BHTE.dtype
    if torch.is_grad_enabled() and _supports_biased(call) and _needs_biased(call):
        return _biased(call)
    if isinstance(attention_bias, DistanceBias) and not call.masks and geo.position_offset is not None:
        # Flips queries and outputs: a flipped Toeplitz view would be a copy of H x T x S.
        out, lse = _call(call, call.q_BHTE.flip(2), toeplitz(attention_bias, geo, dtype))
        return out.flip(2), None if lse is None else lse.flip(2)
    if attention_bias is None and not call.masks:
        if is_shared_context(call):
            return fold_sequences(call, lambda folded: _call(folded, folded.q_BHTE, None))
        unmasked = geo.square or geo.keys_all_past
        mask = None if unmasked else geo.memo(("additive", dtype), lambda: additive(geo.visible(), dtype))
        return _call(call, call.q_BHTE, mask)
    if not torch.is_grad_enabled() and 0 < (window := beyond_window_only(call)) < len(geo.k_index_S):
        causal = shift_to_causal(call, window)
        out, lse = _call(causal, causal.q_BHTE, None)
        out = F.pad(out, (0, 0, window, 0))
        return out, None if lse is None else F.pad(lse, (window, 0), value=-torch.inf)
    batch, heads, queries, _ = call.q_BHTE.shape
    step = max(1, MASK // (batch * heads * len(geo.k_index_S)))
    if not torch.is_grad_enabled() and is_mostly_hidden(call):
        parts = [_masked(prune_masked_keys(call, rows), slice(None)) for rows in _blocks(queries, BLOCK)]
    elif torch.is_grad_enabled() or step >= queries:
        return _masked(call, slice(0, queries))
    else:
        # Writes out the mask of a long text a few rows at a time.
        parts = [_masked(call, rows) for rows in _blocks(queries, step)]
    outs, lses = zip(*reversed(parts), strict=True)
    return torch.cat(outs, 2), torch.cat(lses, 2) if call.with_lse else None


def _blocks(queries: int, step: int) -> list[slice]:
    """Returns slices of `step` rows, the last ones first: they need the most memory, which all others reuse."""
    return [slice(start, min(start + step, queries)) for start in reversed(range(0, queries, step))]


def _masked(call: AttentionCall, rows: slice) -> tuple[Tensor, Tensor | None]:
    """Attends from some rows, with bias and masks written out."""
    geo, dtype, q = call.geo.trim_to_visible_keys(rows), call.q_BHTE.dtype, call.q_BHTE[:, :, rows]
    keys = slice(0, len(geo.k_index_S))
    call = replace(call, k_BHSE=call.k_BHSE[:, :, keys], v_BHSD=call.v_BHSD[:, :, keys])
    visible = geo.visible(call.masks, rows)
    if call.bias is None:
        out, lse = _call(call, q, additive(visible, dtype))
    else:
        bias = call.bias.value(geo, rows).to(dtype).masked_fill(~visible, -torch.inf)
        out, lse = _call(call, q, bias[(None,) * (4 - bias.dim())])
    # torch's log-sum-exp is 0 where no key is visible.
    return out, None if lse is None else lse.masked_fill(~visible.any(-1), -torch.inf)


def _supports_biased(call: AttentionCall) -> bool:
    """Whether `BiasedAttention` applies: on the CPU, all tokens are queries and keys, queries as wide as values."""
    q, k, v = call.q_BHTE, call.k_BHSE, call.v_BHSD
    if not call.geo.ordered or q.device.type != "cpu" or q.dtype not in (torch.float32, torch.float64):
        return False
    return q.shape == k.shape and q.shape[:3] == v.shape[:3] and q.shape[-1] >= v.shape[-1]


def _needs_biased(call: AttentionCall) -> bool:
    """Whether torch has no gradient for the call, or writes out every pair for it."""
    fixed = isinstance(call.bias, DistanceBias) and call.bias.cache_owner is not None
    if fixed and call.geo.position_offset is None:
        return True  # for the table that `square_bias` caches for all layers
    return (call.bias is not None and not fixed) or call.with_lse or call.q_BHTE.shape != call.v_BHSD.shape


def _biased(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    bias = square_bias(call)
    out, lse = BiasedAttention.apply(call.q_BHTE, call.k_BHSE, call.v_BHSD, bias, call.scale)
    if not call.with_lse:
        return out, None
    if isinstance(call.bias, SeparableBias) and bias is not None and bias.shape[2] == 1:
        lse = lse + call.bias.row_BHT.to(lse.dtype)
    if call.masks:
        lse = lse.masked_fill(~call.geo.visible(call.masks).any(-1), -torch.inf)
    return out, lse


def square_bias(call: AttentionCall) -> Tensor | None:
    """Returns bias and masks as one additive mask (B or 1, H or 1, T or 1, S), or None; causality is optional in it."""
    attention_bias, geo, dtype = call.bias, call.geo, call.q_BHTE.dtype
    if isinstance(attention_bias, SeparableBias) and not call.masks and _column_suffices(attention_bias):
        # The row of a separable bias cancels in the softmax.
        return attention_bias.column_BHS[:, :, None].to(dtype)
    if isinstance(attention_bias, DistanceBias) and not call.masks and geo.position_offset is not None:
        return toeplitz(attention_bias, geo, dtype).flip(2)
    if attention_bias is None:
        return additive(geo.visible(call.masks), dtype) if call.masks else None
    if isinstance(attention_bias, DistanceBias) and attention_bias.cache_owner is not None and not call.masks:
        # Random positions: all layers of a step share them.
        key = (attention_bias.cache_owner, "square", dtype)
        return geo.memo(key, lambda: attention_bias.value(geo, slice(None)).to(dtype)[None])
    bias = attention_bias.value(geo, slice(None)).to(dtype)
    if call.masks:
        bias = bias.masked_fill(~geo.visible(call.masks), -torch.inf)
    bias = bias[(None,) * (4 - bias.dim())]
    return bias.expand(*bias.shape[:3], len(geo.k_pos_S))


def _column_suffices(bias: SeparableBias) -> bool:
    if bias.column_BHS.shape[-1] > MAX_COLUMN_KEYS:
        return False
    # A graph cannot branch on a value.
    return torch.compiler.is_compiling() or bool(bias.column_BHS.detach().abs().amax() <= MAX_COLUMN)


def _call(call: AttentionCall, q_BHTE: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Attends with an additive mask; without one, causally, or to all keys if all of them lie before the queries."""
    k, v = call.k_BHSE, call.v_BHSD
    if len(k) == 1 and len(q_BHTE) > 1:  # several continuations of one context
        k, v = k.expand(len(q_BHTE), -1, -1, -1), v.expand(len(q_BHTE), -1, -1, -1)
    causal, scale, dims = mask is None and not call.geo.keys_all_past, call.scale, v.shape[-1]
    if q_BHTE.device.type == "cpu" and dims < q_BHTE.shape[-1]:
        # The fused CPU kernel supports one head dimension only; without it torch writes out every pair.
        v = F.pad(v, (0, q_BHTE.shape[-1] - dims))
    if call.with_lse:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = fused(q_BHTE, k, v, 0.0, causal, attn_mask=mask, scale=scale)
        return out[..., :dims], lse
    if mask is None and tunable(q_BHTE):
        return SDPA_AUTOTUNER(q_BHTE, k, v, scale, causal), None
    out = F.scaled_dot_product_attention(q_BHTE, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    return out[..., :dims], None


def additive(visible_TS: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns (1, 1, T, S): 0 where visible, -inf elsewhere."""
    mask = torch.zeros(visible_TS.shape, dtype=dtype, device=visible_TS.device)
    return mask.masked_fill_(~visible_TS, -torch.inf)[None, None]


def toeplitz(attention_bias: DistanceBias, geo: Geometry, dtype: torch.dtype) -> Tensor:
    """Returns a (1, H, T, S) view with the last query first: [.., r, j] is the bias of query T-1-r and key j.

    Keys after the query are at -inf, so that the view contains the causal mask.
    """

    def compute() -> Tensor:
        queries, keys = len(geo.q_pos_T), len(geo.k_pos_S)
        table_HN = attention_bias.table(geo).to(dtype)
        # Row r, key j is distance offset + T - 1 - r - j: entry r + j of the table from far to near.
        later = max(0, queries + keys - 1 - table_HN.shape[1])
        far_to_near = F.pad(table_HN.flip(-1), (0, later), value=-torch.inf)
        return far_to_near.unfold(-1, keys, 1)[None, :, :queries]

    return (
        compute()
        if attention_bias.cache_owner is None
        else geo.memo((attention_bias.cache_owner, "toeplitz", dtype), compute)
    )
