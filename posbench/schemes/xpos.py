"""xPos: RoPE with an exponential decay of each pair of dimensions over the distance.

Sun et al. A Length-Extrapolatable Transformer. ACL 2023. arXiv:2212.10554. Constants of the authors' torchscale:
gamma 0.4, scale_base 512. Pairs of high frequency decay fastest.
Only distances matter, so positions are counted from the middle of the keys, where no product of two factors overflows
float32 below some 30000 tokens, also for a key after its query, whose logit a mask hides. The paper's blockwise
attention at test time is not implemented.
"""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

MAX_EXPONENT = 80.0  # nats, of both factors of a pair together; exp overflows float32 at 88


@register("scheme/xpos")
class XPos(PositionScheme):
    """logit(i, j) = sum_m zeta_m^((i-j)/scale_base) (R_i q_i)_m . (R_j k_j)_m / sqrt(D), zeta_m = (2m/D + g) / (1 + g), g = gamma."""

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
        if not (0 < gamma <= 1e6 and 0 < scale_base <= 1e12):
            raise ConfigError(
                f"xpos gamma {gamma}, scale_base {scale_base}: give numbers above 0, at most 1e6 and 1e12 (0.4 and 512 in "
                "the paper)"
            )
        self.interleaved = interleaved
        self.inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        part_M = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        self.log_decay_M = torch.log((part_M + gamma) / (1 + gamma)) / scale_base
        self.max_length = math.floor(MAX_EXPONENT / -float(self.log_decay_M[0]))

    def check(self, length: int) -> None:
        if length > self.max_length:
            raise LengthError(
                f"xpos at {length} tokens leaves the range of float32: evaluate at most {self.max_length} tokens, or "
                "train with a larger scale_base"
            )

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        (cos_q, sin_q), (cos_k, sin_k) = rotary_cos_sin(self.inv_freq_M, inputs, self)
        scale_q, scale_k = inputs.geo.memo((self, cos_q.dtype), lambda: self.scales(inputs, cos_q.dtype))
        q = rotate(inputs.q_BHTD, cos_q * scale_q, sin_q * scale_q, self.interleaved)
        return q, rotate(inputs.k_BHSD, cos_k * scale_k, sin_k * scale_k, self.interleaved)

    def scales(self, inputs: AttentionInputs, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns zeta^(position / scale_base) of the queries and its inverse of the keys, (T, M) and (S, M)."""
        q_pos, k_pos = inputs.geo.q_pos_T.double(), inputs.geo.k_pos_S.double()
        middle = (k_pos[0] + k_pos[-1]) / 2
        log_decay_M = self.log_decay_M.to(q_pos.device)
        scale_q = torch.exp((q_pos - middle)[:, None] * log_decay_M)
        return scale_q.to(dtype), torch.exp((middle - k_pos)[:, None] * log_decay_M).to(dtype)
