"""Cable: every token adds, by its content, to the distance of all tokens before it.

Veisi, Amirzadeh, Mansourian. Context-aware Biases for Length Extrapolation. 2025, section 3. arXiv:2503.08067.
As in the authors' code the content logits are not divided by sqrt(D) (its scale is C / n_embd = 1); with
`scaled` they are, as for every other scheme, and the family of functions is that of forgetting attention.
Weights are drawn at standard deviation 0.02, biases start at 0, as theirs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, SeparableBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/cable")
class Cable(PositionScheme):
    """logit(h, i, j) = q_i . k_j - sum over l = j+1 .. i of softplus(w_h . x_l + b_h)."""

    traits = Traits(relative=True, pairwise=False, reads_hidden_states=True)

    def __init__(self, shape: ModelShape, scaled: bool = False) -> None:
        super().__init__()
        self.unscale = 1.0 if scaled else math.sqrt(shape.head_dim)
        self.weight_LHW = nn.Parameter(0.02 * torch.randn(shape.n_layers, shape.n_heads, shape.d_model))
        self.bias_LH = nn.Parameter(torch.zeros(shape.n_layers, shape.n_heads))

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return torch.tensor(self.unscale, dtype=torch.float64, device=inputs.q_BHTD.device)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        assert inputs.x_BSW is not None
        step_BSH = F.linear(inputs.x_BSW, self.weight_LHW[inputs.layer], self.bias_LH[inputs.layer])
        far_BHS = F.softplus(step_BSH.double()).cumsum(1).transpose(1, 2)
        return SeparableBias(-far_BHS[..., -inputs.q_BHTD.shape[2] :], far_BHS)
