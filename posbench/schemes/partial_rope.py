"""Partial RoPE: only the first dimensions of each head are rotated.

Black et al. GPT-NeoX-20B: An Open-Source Autoregressive Language Model. 2022 (a quarter of the head).
arXiv:2204.06745. First in GPT-J. The default, half of the head, is ChatGLM's. The frequencies are those of a head
of as many dimensions as rotate.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/partial_rope")
class PartialRoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m < r/2 by p * rope_theta^(-2m/r), not the others.

    r is `partial_rotary_factor` * D.
    """

    traits = Traits(relative=True, capabilities=frozenset({"positions", "inv_freq"}))

    def __init__(
        self,
        shape: ModelShape,
        partial_rotary_factor: float = 0.5,
        rope_theta: float = 10000.0,
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        self.dims = int(partial_rotary_factor * shape.head_dim) if 0 < partial_rotary_factor <= 1 else 0
        if self.dims < 2 or self.dims % 2:
            raise ConfigError(
                f"partial_rope partial_rotary_factor {partial_rotary_factor} of a head of {shape.head_dim} dimensions: give a part of it, at "
                "most 1, that is an even number of dimensions"
            )
        self.interleaved = interleaved
        self.inv_freq_M = compute_inv_freq(self.dims, rope_theta)

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        at_q, at_k = rotary_cos_sin(self.inv_freq_M, inputs, self)
        return self.rotate_first(inputs.q_BHTD, *at_q), self.rotate_first(inputs.k_BHSD, *at_k)

    def rotate_first(self, x_BHTD: Tensor, cos_TM: Tensor, sin_TM: Tensor) -> Tensor:
        """Rotates the first dimensions and keeps the others."""
        rotated = rotate(x_BHTD[..., : self.dims], cos_TM, sin_TM, self.interleaved)
        return torch.cat((rotated, x_BHTD[..., self.dims :]), -1)
