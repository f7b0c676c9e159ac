"""PoPE: queries and keys in polar form; the content sets magnitudes, the position sets angles.

Gopalakrishnan et al. Decoupling the "What" and "Where" With Polar Coordinate Positional Embeddings. ICML 2026.
arXiv:2509.10534.
A head has D frequencies, rope_theta^(-c/D). As in x-transformers, the phases delta start at 0, one of the paper's two
choices and its better one for extrapolation, and are shared by the layers. They are clamped to [-2 pi, 0] on use, with
a gradient that lets a phase outside return.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits
from posbench.position.straight_through import straight_through_clamp


@register("scheme/pope")
class PoPE(PositionScheme):
    """logit(h, i, j) = sum_c softplus(q_ic) softplus(k_jc) cos((i - j) * theta_c - delta_hc) / sqrt(D)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "inv_freq"}))

    def __init__(self, shape: ModelShape, rope_theta: float = 10000.0) -> None:
        super().__init__()
        self.inv_freq_D = compute_inv_freq(2 * shape.head_dim, rope_theta)
        self.delta_HD = nn.Parameter(torch.zeros(shape.n_heads, shape.head_dim))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        (cos_q, sin_q), (cos_k, sin_k) = rotary_cos_sin(self.inv_freq_D, inputs, self)
        delta_HD = straight_through_clamp(self.delta_HD, -2 * math.pi, 0.0).to(cos_k.dtype)
        cos_delta, sin_delta = delta_HD[:, None].cos(), delta_HD[:, None].sin()
        q = polar(inputs.q_BHTD, cos_q, sin_q)
        k = polar(inputs.k_BHSD, cos_k * cos_delta - sin_k * sin_delta, sin_k * cos_delta + cos_k * sin_delta)
        return q, k


def polar(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns the D complex numbers of magnitude softplus(x) and given angle as 2D coordinates, (B, H, T, 2D)."""
    magnitude_BHTD = F.softplus(x_BHTD.to(cos.dtype))
    return torch.cat((magnitude_BHTD * cos, magnitude_BHTD * sin), -1).to(x_BHTD.dtype)
