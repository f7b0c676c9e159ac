"""Transformer-XL: queries, and a trained vector, multiplied with sinusoids of the distance.

Dai et al. Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context. ACL 2019, section 3.3.
arXiv:1901.02860. Also XLNet's: arXiv:1906.08237. Two key matrices: the model's for content, W_R of each layer for
positions; u and v are shared by layers, as printed. Without its memory of earlier segments: positions only.
Where positions are consecutive, the N vectors W_R r_n are computed once; elsewhere r_(i-j) is expanded by angle
addition, exactly, so that no pair needs a vector of its own.
"""

import math

import torch
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.biases import AttentionBias
from posbench.position.geometry import Geometry
from posbench.position.rotary import compute_inv_freq, cos_sin, rotary_dtype
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/transformer_xl")
class TransformerXL(PositionScheme):
    """logit(i, j) = [(q_i + u) . k_j + (q_i + v) . (W_R r_(i-j))] / sqrt(D), r_n = [sin(n theta) | cos(n theta)]."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))
    decayed_parameters = ("key_LWHD",)

    def __init__(self, shape: ModelShape, base: float = 10000.0) -> None:
        super().__init__()
        self.inv_freq_M = compute_inv_freq(shape.d_model, base, of="width", setting="base")
        shape_LWHD = (shape.n_layers, shape.d_model, shape.n_heads, shape.head_dim)
        self.key_LWHD = nn.Parameter(torch.randn(shape_LWHD) * shape.d_model**-0.5)
        self.u_HD = nn.Parameter(0.02 * torch.randn(shape.n_heads, shape.head_dim))
        self.v_HD = nn.Parameter(0.02 * torch.randn(shape.n_heads, shape.head_dim))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return inputs.q_BHTD + self.u_HD[:, None], inputs.k_BHSD

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        q_BHTD = (inputs.q_BHTD + self.v_HD[:, None]) / math.sqrt(inputs.q_BHTD.shape[-1])
        return SinusoidBias(q_BHTD, self.key_LWHD[inputs.layer], self.inv_freq_M)


class SinusoidBias(AttentionBias):
    """q_i . (W r_(i-j))."""

    def __init__(self, q_BHTD: Tensor, key_WHD: Tensor, inv_freq_M: Tensor) -> None:
        self.q_BHTD, self.key_WHD, self.inv_freq_M = q_BHTD, key_WHD, inv_freq_M

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        if geo.position_offset is None:
            return self.by_angle_addition(geo, rows)
        distance_N = torch.arange(geo.position_offset + len(geo.q_pos_T), device=geo.q_pos_T.device)
        cos_NM, sin_NM = self.waves(distance_N, self.q_BHTD.dtype)
        key_HND = torch.einsum("nw,whd->hnd", torch.cat((sin_NM, cos_NM), -1), self.key_WHD)
        logit_BHRN = self.q_BHTD[:, :, rows] @ key_HND.mT
        distance_RS = geo.distance(rows).clamp(min=0)
        return logit_BHRN.gather(-1, distance_RS.expand(*logit_BHRN.shape[:2], *distance_RS.shape))

    def by_angle_addition(self, geo: Geometry, rows: slice) -> Tensor:
        """a sin(i - j) + b cos(i - j) = (a sin i + b cos i) cos j + (b sin i - a cos i) sin j, for each frequency."""
        projected_BHRW = torch.einsum("bhrd,whd->bhrw", self.q_BHTD[:, :, rows], self.key_WHD)
        # In bfloat16, the sum of products would be off by more than one rounding of the result.
        a, b = projected_BHRW.to(rotary_dtype(self.q_BHTD)).chunk(2, -1)
        cos_RM, sin_RM = (wave_TM[rows] for wave_TM in self.waves(geo.q_pos_T, a.dtype))
        cos_SM, sin_SM = self.waves(geo.k_pos_S, a.dtype)
        rotated_BHRW = torch.cat((a * sin_RM + b * cos_RM, b * sin_RM - a * cos_RM), -1)
        return rotated_BHRW @ torch.cat((cos_SM, sin_SM), -1).T

    def waves(self, pos_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines, (T, M) each."""
        return cos_sin(pos_T, self.inv_freq_M.to(pos_T.device), dtype)
