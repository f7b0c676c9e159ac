"""RoPE++: half of the heads attend by the imaginary part of RoPE's complex product.

Liu et al. Beyond Real: Imaginary Extension of Rotary Position Embeddings for Long-Context LLMs. ICLR 2026.
arXiv:2512.07525. The mode `imagh` of the authors' code (github.com/OpenMOSS/rope_pp): every head has queries, keys and
values of its own. In the paper's main variants a real and an imaginary head share one query, so that there are more
heads of attention than of queries, or fewer queries; the model here has one of each for each head.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/rope_pp")
class RoPEPP(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D) for the first half of the heads, R of RoPE; the others: (J^-1 R_i q_i) . (R_j k_j) / sqrt(D).

    J rotates every pair of dimensions by a quarter of a turn.
    """

    traits = Traits(relative=True, capabilities=frozenset({"positions", "inv_freq"}))

    def __init__(self, shape: ModelShape, rope_theta: float = 10000.0, interleaved: bool = True) -> None:
        super().__init__()
        if shape.n_heads < 2:
            raise ConfigError("rope_pp of 1 head: give at least 2, of which half are imaginary")
        self.interleaved, self.real_heads = interleaved, (shape.n_heads + 1) // 2
        self.inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        (cos_q, sin_q), at_k = rotary_cos_sin(self.inv_freq_M, inputs, self)
        real, imaginary = inputs.q_BHTD[:, : self.real_heads], inputs.q_BHTD[:, self.real_heads :]
        q = (
            rotate(real, cos_q, sin_q, self.interleaved),
            rotate(imaginary, sin_q, -cos_q, self.interleaved),
        )
        return torch.cat(q, 1), rotate(inputs.k_BHSD, *at_k, self.interleaved)
