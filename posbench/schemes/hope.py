"""HoPE: RoPE without the frequencies that complete no period within the training length.

Chen et al. HoPE: A Novel Positional Encoding Without Long-Term Decay for Enhanced Context Awareness and
Extrapolation. ACL 2025. arXiv:2410.21216. Not the HoPE of arXiv:2509.05218.
The other pairs of dimensions are not rotated. Extensions that scale frequencies need at least two kept ones.
"""

import math

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotate_qk
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/hope")
class HoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m by p * theta_m where theta_m >= 2 pi / train_len."""

    def __init__(self, shape: ModelShape, rope_theta: float = 10000.0, interleaved: bool = True) -> None:
        super().__init__()
        self.interleaved = interleaved
        inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        self.inv_freq_M = inv_freq_M[inv_freq_M >= 2 * math.pi / shape.train_len]
        if len(self.inv_freq_M) < 1:
            raise ConfigError(
                f"hope with a training length of {shape.train_len}: no frequency completes a period within it; train "
                "on at least 7 tokens"
            )
        capabilities = {"positions", "inv_freq"} if len(self.inv_freq_M) > 1 else {"positions"}
        self.traits = Traits(relative=True, capabilities=frozenset(capabilities))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return rotate_qk(self.inv_freq_M, inputs, self, self.interleaved)
