"""torch.nn.functional.scaled_dot_product_attention, with terms and masks as one additive mask.

It cannot add to the values, and its log-sum-exp carries no gradient, so it does not offer one.
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
    if pairs.value is not None:
        return "it cannot add to the values by pair"
    if pairs.with_lse:
        return "it has no log-sum-exp, which regions and changed denominators need"
    return None


def sdpa(pairs: Pairs) -> tuple[Tensor, None]:
    """(B, H, T, D); every row must see a key, which causality grants where no region takes it away."""
    q, k, v = pairs.q_BHTE, pairs.k_BHSE, pairs.v_BHSD
    if len(k) == 1 and len(q) > 1:  # many questions over one context
        k, v = k.expand(len(q), -1, -1, -1), v.expand(len(q), -1, -1, -1)
    term, geo = pairs.term, pairs.geo
    if term is None and not pairs.masks:
        if geo.square:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=pairs.scale), None
        mask = geo.memo("visible", geo.visible)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=pairs.scale), None
    if isinstance(term, DistanceTable) and not pairs.masks and geo.offset is not None:
        # A flipped `unfold` would be a copy of H x T x S: flip the queries and the outputs instead.
        bias = toeplitz(term, geo, q.dtype)
        out = F.scaled_dot_product_attention(q.flip(2), k, v, attn_mask=bias, scale=pairs.scale)
        return out.flip(2), None
    visible = geo.visible(pairs.masks)
    if term is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=pairs.scale), None
    bias = term.logits(geo, slice(None)).to(q.dtype).masked_fill(~visible, -torch.inf)
    bias = bias.expand(*(1,) * (4 - bias.dim()), *bias.shape[-4:]) if bias.dim() < 4 else bias
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=pairs.scale), None


def toeplitz(term: DistanceTable, geo: Geometry, dtype: torch.dtype) -> Tensor:
    """(1, H, T, S) view with the last query first: [.., r, j] is the term of query T-1-r and key j.

    Keys after the query stand at -inf, so the causal mask is in the table.
    """

    def compute() -> Tensor:
        queries, keys = len(geo.q_pos_T), len(geo.k_pos_S)
        assert geo.offset is not None
        table_HN = term.table(geo).to(dtype)
        # Row r, key j is distance offset + T - 1 - r - j: entry r + j of the table from far to near.
        far_to_near = table_HN.flip(-1)
        later = far_to_near.new_full(
            (len(table_HN), max(0, queries + keys - 1 - table_HN.shape[1])), -torch.inf
        )
        return torch.cat((far_to_near, later), -1).unfold(-1, keys, 1)[None, :, :queries]

    return compute() if term.fixed is None else geo.memo((term.fixed, "toeplitz", dtype), compute)
