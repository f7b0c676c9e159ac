"""PoPE: every dimension of a query and a key is a magnitude, its angle is the position alone.

Gopalakrishnan et al. Decoupling the "What" and "Where" With Polar Coordinate Positional Embeddings. 2025.
arXiv:2509.10534.
A head has D frequencies, rope_theta^(-c/D). The phases delta start at 0 and are shared by the layers, as in
x-transformers; they are kept within [-2 pi, 0] on use, with a gradient that lets one outside come back.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


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
        delta_H1D = within(self.delta_HD).to(cos_k.dtype)[:, None]
        shift, slide = delta_H1D.cos(), delta_H1D.sin()
        q = polar(inputs.q_BHTD, cos_q, sin_q)
        k = polar(inputs.k_BHSD, cos_k * shift - sin_k * slide, sin_k * shift + cos_k * slide)
        return q, k


def polar(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, H, T, 2D): magnitudes and angles as the coordinates of D complex numbers."""
    size_BHTD = F.softplus(x_BHTD.to(cos.dtype))
    return torch.cat((size_BHTD * cos, size_BHTD * sin), -1).to(x_BHTD.dtype)


def within(delta: Tensor) -> Tensor:
    """Between -2 pi and 0, in float64, with the gradient of the identity."""
    exact = delta.double()
    return exact + (exact.clamp(-2 * math.pi, 0.0) - exact).detach()
