"""Cable: each token adds a content-dependent amount to its distance from all earlier tokens.

Veisi, Amirzadeh, Mansourian. Context-aware Biases for Length Extrapolation. 2025, section 3. arXiv:2503.08067.
As in the authors' code, content logits are not divided by sqrt(D) (its scale is C / n_embd = 1); with `scaled` they
are, as in every other scheme, and the family of functions is that of forgetting attention (FoX). Weights are drawn
at standard deviation 0.02 and biases start at 0, as in their code.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.instantiate import register
from posbench.position.scheme import AttentionInputs, ModelShape
from posbench.position.token_decay import TokenDecay


@register("scheme/cable")
class Cable(TokenDecay):
    """logit(h, i, j) = q_i . k_j - sum over l = j+1 .. i of softplus(w_h . x_l + b_h)."""

    def __init__(self, shape: ModelShape, scaled: bool = False) -> None:
        super().__init__(shape, init_bias_H=torch.zeros(shape.n_heads))
        # The kernels divide by sqrt(D).
        self.content_scale = 1.0 if scaled else math.sqrt(shape.head_dim)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return torch.tensor(self.content_scale, dtype=torch.float64, device=inputs.q_BHTD.device)

    def decay(self, gate_BSH: Tensor) -> Tensor:
        return F.softplus(gate_BSH)
