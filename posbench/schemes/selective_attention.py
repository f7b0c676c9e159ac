"""Selective attention: each token can lower the logits of earlier tokens for all tokens after it.

Leviathan, Kalman, Matias. Selective Attention Improves Transformer. ICLR 2025, section 3. arXiv:2410.02703. The
positive logits of the first head (those of the base scheme, with its bias), summed over the queries so far, are
subtracted from the logits of every head. The first token is never lowered, and no token lowers itself. Logits of
earlier queries are required: a cache does not hold them, so prompts over one context are read again for each
continuation, and regions with other positions would change them, so extensions with regions do not apply. It
encodes no order, so its configuration is built around RoPE.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, add
from posbench.position.compose import Stack, refuse_full_rows
from posbench.position.geometry import Geometry
from posbench.position.numerics import autocast_disabled, upcast
from posbench.position.scheme import AttentionInputs, ModelShape


@dataclass(frozen=True, eq=False)
class Selection(AttentionBias):
    """Minus the sum of what the queries before each query select, the same for all heads."""

    selected_BTS: Tensor

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        return -self.selected_BTS[:, None, rows, : len(geo.k_pos_S)]


@register("scheme/selective_attention")
class SelectiveAttention(Stack):
    """logit(h, i, j) = s_hij - sum over l = j+1 .. i-1 of relu(s_1lj) for j > 0, s the logits of `base_scheme`."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any]) -> None:
        super().__init__(shape, [base_scheme])
        self.traits = replace(self.traits, shared_prefill=False, pairwise=False, lse_mergeable=False)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        geo, inner = inputs.geo, super().attention_bias(inputs)
        refuse_full_rows(inner, self)
        (q_BHTE, k_BHSE), scale, mask = self.qk(inputs), self.logit_scale(inputs), self.mask(inputs)
        with autocast_disabled(q_BHTE):
            q_BTE, k_BSE = upcast(q_BHTE[:, 0]), upcast(k_BHSE[:, 0])
            if scale is not None:
                q_BTE = q_BTE * _first_head(scale, 3)[..., None].to(q_BTE.dtype)
            logit_BTS = q_BTE @ k_BSE.mT * inputs.q_BHTD.shape[-1] ** -0.5
        if inner is not None:
            logit_BTS = logit_BTS + _first_head(inner.value(geo, slice(None)), 4).to(logit_BTS.dtype)
        earlier_TS = (geo.k_index_S < geo.q_index_T[:, None]) & (geo.k_index_S > 0)
        if mask is not None:
            earlier_TS = earlier_TS & geo.visible((mask,))
        gate_BTS = logit_BTS.relu() * earlier_TS
        return add((inner, Selection(gate_BTS.cumsum(1) - gate_BTS)))


def _first_head(x: Tensor, dims: int) -> Tensor:
    """Returns head 0 of a tensor that broadcasts to `dims` dimensions, (B, H, ...)."""
    return x[(None,) * (dims - x.dim())][:, 0]
