"""Key-gated GRAPE-A: ALiBi with slopes gated by the key.

Zhang et al. Group Representational Position Encoding. ICLR 2026, section 4.1, key-gated. arXiv:2512.07805. As in the
authors' code (github.com/model-architectures/GRAPE, llama-mha-grape-a-keygated): ALiBi's slopes, multiplied by
softplus(omega), which starts at 1; a unit direction for each layer and head; keys before any rotation; a softplus of
the gate, which the paper's text does not have.
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
class KeySlopeBias(AttentionBias):
    """-slope_j * (i - j), with a slope for each key."""

    slope_BHS: Tensor

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        distance_RS = geo.distance(rows).clamp(min=0).to(self.slope_BHS.dtype)
        return -self.slope_BHS[:, :, None, : len(geo.k_pos_S)] * distance_RS


@register("scheme/grape_a_key_gated")
class GrapeAKeyGated(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - (i - j) * slope_h softplus(omega_lh) softplus(u_lh . k_j / sqrt(D))."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    decayed_parameters = ("u_LHD",)

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.slope_H = alibi_slopes(shape.n_heads)
        self.omega_LH = nn.Parameter(torch.full((shape.n_layers, shape.n_heads), math.log(math.e - 1)))
        self.u_LHD = nn.Parameter(torch.randn(shape.n_layers, shape.n_heads, shape.head_dim))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        k_BHSD, omega_H = upcast(inputs.k_BHSD), upcast(self.omega_LH[inputs.layer])
        direction_HD = F.normalize(upcast(self.u_LHD[inputs.layer]), dim=-1, eps=1e-6)
        gate_BHS = F.softplus((k_BHSD * direction_HD[:, None]).sum(-1) / math.sqrt(k_BHSD.shape[-1]))
        key = (self, omega_H.dtype)
        slope_H = inputs.geo.memo(key, lambda: self.slope_H.to(omega_H.device, omega_H.dtype))
        return KeySlopeBias(gate_BHS * (slope_H * F.softplus(omega_H))[:, None])
