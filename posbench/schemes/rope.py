"""RoPE: queries and keys are rotated by angles proportional to their positions.

Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021, section 3.2. arXiv:2104.09864.
"""

from torch import Tensor

from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotate_qk
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/rope")
class RoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m of dimensions by p * rope_theta^(-2m/D)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "inv_freq"}))

    def __init__(self, shape: ModelShape, rope_theta: float = 10000.0, interleaved: bool = True) -> None:
        super().__init__()
        self.interleaved = interleaved
        self.inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return rotate_qk(self.inv_freq_M, inputs, self, self.interleaved)
