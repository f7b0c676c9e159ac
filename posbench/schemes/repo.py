"""RePo: RoPE at positions that each token and head computes from its content.

Li, Zhao, Sproat. RePo: Language Models with Context Re-Positioning. ICML 2026. arXiv:2512.14391. As in the authors'
code (github.com/SakanaAI/repo): a gated unit of an eighth of the width, RoPE of base 500000, weights drawn at standard
deviation 0.02. There the first third of the layers (5 of 16) keeps RoPE; here all compute positions. The input is
normalised, theirs is not. Order is visible through the causal mask alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.content_rotation import cos_sin_of, project
from posbench.position.rotary import compute_inv_freq, rotate, transform_inv_freq
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/repo")
class RePo(PositionScheme):
    """logit(h, i, j) = (R_hi q_i) . (R_hj k_j) / sqrt(D), R_hp rotates pair m by z_hp * rope_theta^(-2m/D), z_p = F (silu(G x_p) * C x_p)."""

    traits = Traits(relative=True, reads_hidden_states=True, capabilities=frozenset({"inv_freq"}))

    decayed_parameters = ("gate_LUW", "content_LUW", "final_LHU")

    def __init__(self, shape: ModelShape, rope_theta: float = 500000.0, interleaved: bool = True) -> None:
        super().__init__()
        self.interleaved = interleaved
        self.inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        layers, units = shape.n_layers, max(1, shape.d_model // 8)
        self.gate_LUW, self.content_LUW = (
            nn.Parameter(0.02 * torch.randn(layers, units, shape.d_model)) for _ in ("gate", "content")
        )
        self.final_LHU = nn.Parameter(0.02 * torch.randn(layers, shape.n_heads, units))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        assert inputs.x_BTW is not None
        assert inputs.x_BSW is not None
        k = self.rotate(inputs.k_BHSD, inputs.x_BSW, inputs)
        return self.rotate(inputs.q_BHTD, inputs.x_BTW, inputs), k

    def rotate(self, x_BHTD: Tensor, x_BTW: Tensor, inputs: AttentionInputs) -> Tensor:
        """Rotates queries or keys to the positions of their tokens."""
        own_inv_freq_M = inputs.geo.memo((self, "inv_freq"), lambda: self.inv_freq_M.to(x_BTW.device))
        inv_freq_M = transform_inv_freq(own_inv_freq_M, inputs)
        angle_BHTM = self.positions(x_BTW, inputs.layer).double()[..., None] * inv_freq_M
        return rotate(x_BHTD, *cos_sin_of(angle_BHTM, x_BHTD), self.interleaved)

    def positions(self, x_BTW: Tensor, layer: int) -> Tensor:
        """Returns the position of each token in each head, (B, H, T) in tokens."""
        unit_BTU = F.silu(project(x_BTW, self.gate_LUW[layer])) * project(x_BTW, self.content_LUW[layer])
        return project(unit_BTU, self.final_LHU[layer]).transpose(1, 2)
