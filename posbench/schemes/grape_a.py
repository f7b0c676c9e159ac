"""GRAPE-A: ALiBi with slopes gated by the query.

Zhang et al. Group Representational Position Encoding. ICLR 2026, section 4.1, query-gated. arXiv:2512.07805.
As in the authors' code (github.com/model-architectures/GRAPE, llama-mha-grape-a-querygated): ALiBi's slopes,
multiplied by softplus(omega), which starts at 1; a unit direction for each layer and head; queries before any
rotation; a softplus of the gate, which the paper's text does not have. The key-gated variant is the scheme
grape_a_key_gated; the one with learned projections is not implemented.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.alibi_slopes import alibi_slopes
from posbench.position.biases import AttentionBias
from posbench.position.geometry import Geometry
from posbench.position.numerics import upcast
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@dataclass(frozen=True, eq=False)
class QuerySlopeBias(AttentionBias):
    """-slope_i * (i - j), with a slope for each query."""

    slope_BHT: Tensor

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        distance_RS = geo.distance(rows).clamp(min=0).to(self.slope_BHT.dtype)
        return -self.slope_BHT[:, :, rows, None] * distance_RS


@register("scheme/grape_a")
class GrapeA(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - (i - j) * slope_h softplus(omega_lh) softplus(v_lh . q_i / sqrt(D))."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))
    decayed_parameters = ("v_LHD",)

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.slope_H = alibi_slopes(shape.n_heads)
        self.omega_LH = nn.Parameter(torch.full((shape.n_layers, shape.n_heads), math.log(math.e - 1)))
        self.v_LHD = nn.Parameter(torch.randn(shape.n_layers, shape.n_heads, shape.head_dim))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        q_BHTD, omega_H = upcast(inputs.q_BHTD), upcast(self.omega_LH[inputs.layer])
        direction_HD = F.normalize(upcast(self.v_LHD[inputs.layer]), dim=-1, eps=1e-6)
        gate_BHT = F.softplus((q_BHTD * direction_HD[:, None]).sum(-1) / math.sqrt(q_BHTD.shape[-1]))
        key = (self, omega_H.dtype)
        slope_H = inputs.geo.memo(key, lambda: self.slope_H.to(omega_H.device, omega_H.dtype))
        steep_H = slope_H * F.softplus(omega_H)
        return QuerySlopeBias(gate_BHT * steep_H[:, None])
