"""xPos: RoPE whose pairs of dimensions also fade with the distance, slow ones hardly, fast ones soonest.

Sun et al. A Length-Extrapolatable Transformer. ACL 2023. arXiv:2212.10554. Constants of the
authors' torchscale: gamma 0.4, scale_base 512.
Distances alone matter, so positions are counted from the middle of the keys, where neither factor of a pair
overflows float32 below some 60000 tokens. The paper's blockwise attention at test time is not part of it.
"""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

LARGEST = 80.0  # nats; float32 ends at exp(88)


@register("scheme/xpos")
class XPos(PositionScheme):
    """logit(i, j) = sum_m zeta_m^((i-j)/scale_base) (R_i q_i)_m . (R_j k_j)_m / sqrt(D), zeta_m = (2m/D + g) / (1 + g)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "inv_freq"}))

    def __init__(
        self,
        shape: ModelShape,
        rope_theta: float = 10000.0,
        gamma: float = 0.4,
        scale_base: float = 512.0,
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        if not (gamma > 0 and scale_base > 0):
            raise ConfigError(
                f"xpos gamma {gamma}, scale_base {scale_base}: give numbers above 0 (0.4 and 512 in the paper)"
            )
        self.interleaved = interleaved
        self.inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        part_M = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        self.decay_M = torch.log((part_M + gamma) / (1 + gamma)) / scale_base
        self.longest = math.floor(2 * LARGEST / -float(self.decay_M[0]))

    def check(self, length: int) -> None:
        if length > self.longest:
            raise LengthError(
                f"xpos at {length} tokens leaves the range of float32: evaluate at most {self.longest} tokens, or "
                "train with a larger scale_base"
            )

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        at_q, at_k = rotary_cos_sin(self.inv_freq_M, inputs, self)
        fade_q, fade_k = inputs.geo.memo((self, at_q[0].dtype), lambda: self.fades(inputs, at_q[0].dtype))
        q = rotate(inputs.q_BHTD, at_q[0] * fade_q, at_q[1] * fade_q, self.interleaved)
        k = rotate(inputs.k_BHSD, at_k[0] * fade_k, at_k[1] * fade_k, self.interleaved)
        return q.to(inputs.q_BHTD.dtype), k.to(inputs.k_BHSD.dtype)

    def fades(self, inputs: AttentionInputs, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(T, M) and (S, M): zeta to the power of the position, and of its negative."""
        q_pos, k_pos = inputs.geo.q_pos_T.double(), inputs.geo.k_pos_S.double()
        middle = (k_pos[0] + k_pos[-1]) / 2
        decay_M = self.decay_M.to(q_pos.device)
        fade_q = torch.exp((q_pos - middle)[:, None] * decay_M)
        return fade_q.to(dtype), torch.exp((middle - k_pos)[:, None] * decay_M).to(dtype)
