"""torch.nn.functional.scaled_dot_product_attention, with terms and masks as one additive mask.

It cannot add to the values. Its log-sum-exp carries no gradient and is to be had on the CPU only, so regions
and changed denominators run here in evaluation, and in `dense` where they are trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.attend import Pairs
from posbench.geometry import Geometry
from posbench.terms import DistanceTable


def refusal(pairs: Pairs) -> str | None:
    """Why this kernel cannot run `pairs`, or None."""
    if pairs.term is not None and pairs.term.whole_rows:
        return "it cannot give a term its rows of logits"
    if pairs.value is not None:
        return "it cannot add to the values by pair"
    if pairs.with_lse and pairs.q_BHTE.device.type != "cpu":
        return "regions and changed denominators need its log-sum-exp, which it gives on the CPU only"
    if pairs.with_lse and pairs.q_BHTE.shape[-1] != pairs.v_BHSD.shape[-1]:
        return "its log-sum-exp needs queries and values of one dimension"
    if pairs.with_lse and torch.is_grad_enabled():  # whoever needs it: q, k, v, the term or the denominator
        return "regions and changed denominators need its log-sum-exp, which carries no gradient"
    return None


def sdpa(pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """(B, H, T, D), and the log-sum-exp where asked for.

    Without it every row must see a key, which causality grants where no region takes it away.
    """
    term, geo, dtype = pairs.term, pairs.geo, pairs.q_BHTE.dtype
    if isinstance(term, DistanceTable) and not pairs.masks and geo.offset is not None:
        # A flipped `unfold` would be a copy of H x T x S: flip the queries and the outputs instead.
        out, lse = _call(pairs, pairs.q_BHTE.flip(2), toeplitz(term, geo, dtype))
        return out.flip(2), None if lse is None else lse.flip(2)
    if term is None and not pairs.masks:
        plain = None if geo.square else geo.memo(("additive", dtype), lambda: additive(geo.visible(), dtype))
        return _call(pairs, pairs.q_BHTE, plain)
    visible = geo.visible(pairs.masks)
    if term is None:
        out, lse = _call(pairs, pairs.q_BHTE, additive(visible, dtype))
    else:
        bias = term.logits(geo, slice(None)).to(dtype).masked_fill(~visible, -torch.inf)
        out, lse = _call(pairs, pairs.q_BHTE, bias[(None,) * (4 - bias.dim())])
    # The log-sum-exp of nothing reads 0 there.
    return out, None if lse is None else lse.masked_fill(~visible.any(-1), -torch.inf)


def _call(pairs: Pairs, q_BHTE: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Attention under an additive mask; plain causal without one."""
    k, v = pairs.k_BHSE, pairs.v_BHSD
    if len(k) == 1 and len(q_BHTE) > 1:  # many questions over one context
        k, v = k.expand(len(q_BHTE), -1, -1, -1), v.expand(len(q_BHTE), -1, -1, -1)
    causal, scale = mask is None, pairs.scale
    if pairs.with_lse:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BHTE, k, v, 0.0, causal, attn_mask=mask, scale=scale
        )
    return F.scaled_dot_product_attention(q_BHTE, k, v, attn_mask=mask, is_causal=causal, scale=scale), None


def additive(visible_TS: Tensor, dtype: torch.dtype) -> Tensor:
    """(1, 1, T, S): 0 where visible, -inf elsewhere."""
    hidden = torch.zeros(visible_TS.shape, dtype=dtype, device=visible_TS.device)
    return hidden.masked_fill_(~visible_TS, -torch.inf)[None, None]


def toeplitz(term: DistanceTable, geo: Geometry, dtype: torch.dtype) -> Tensor:
    """(1, H, T, S) view with the last query first: [.., r, j] is the term of query T-1-r and key j.

    Keys after the query stand at -inf, so the causal mask is in the table.
    """

    def compute() -> Tensor:
        queries, keys = len(geo.q_pos_T), len(geo.k_pos_S)
        table_HN = term.table(geo).to(dtype)
        # Row r, key j is distance offset + T - 1 - r - j: entry r + j of the table from far to near.
        later = max(0, queries + keys - 1 - table_HN.shape[1])
        far_to_near = F.pad(table_HN.flip(-1), (0, later), value=-torch.inf)
        return far_to_near.unfold(-1, keys, 1)[None, :, :queries]

    return compute() if term.fixed is None else geo.memo((term.fixed, "toeplitz", dtype), compute)
