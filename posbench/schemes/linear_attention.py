"""Linear attention: a product of positive features replaces the softmax, optionally with RoPE.

Katharopoulos et al. Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention. ICML 2020,
sections 3.2 to 3.4. arXiv:2006.16236. With rotation: RoFormer, section 3.3, equation 19, arXiv:2104.09864:
features are rotated in the numerator and not in the denominator, which therefore stays positive.
Prefix sums are over chunks of keys, so memory is linear in the length. There are no logits that an extension could
mask, split or scale; an extension that moves positions moves the rotation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import upcast
from posbench.position.numerics import lower_triangle
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, Traits
from posbench.position.state_scheme import StateScheme

CHUNK = 64  # keys


@register("scheme/linear_attention")
class LinearAttention(StateScheme):
    """out_i = sum_j (R_i f(q_i)) . (R_j f(k_j)) v_j / sum_j f(q_i) . f(k_j) over j <= i, f(x) = elu(x) + 1."""

    version = 2  # heads are merged by default

    def __init__(
        self, shape: ModelShape, use_rope: bool = False, rope_theta: float = 10000.0, min_head_dim: int = 48
    ) -> None:
        super().__init__(shape, min_head_dim)
        self.use_rope = use_rope
        self.inv_freq_M = compute_inv_freq(self.shape.head_dim, rope_theta) if use_rope else None
        if not rope_theta > 1:
            raise ConfigError(f"rope_theta {rope_theta} of the angular frequencies: give a number above 1")
        capabilities = frozenset({"positions"} if use_rope else ())
        self.traits = Traits(relative=True, softmax_attention=False, capabilities=capabilities)

    def mix(self, inputs: AttentionInputs, v_BHSD: Tensor) -> Tensor:
        q, k = (F.elu(upcast(x)) + 1 for x in (inputs.q_BHTD, inputs.k_BHSD))
        cached = k.shape[2] - q.shape[2]  # keys before the first query
        denominator_BHT = (q * k.cumsum(2)[:, :, cached:]).sum(-1)
        if self.inv_freq_M is not None:
            at_q, at_k = rotary_cos_sin(self.inv_freq_M, inputs, self)
            q, k = rotate(q, *at_q, interleaved=True), rotate(k, *at_k, interleaved=True)
        numerator_BHTD = causal_product(q, k, upcast(v_BHSD), cached)
        return (numerator_BHTD / denominator_BHT[..., None]).to(v_BHSD.dtype)


def causal_product(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, cached: int) -> Tensor:
    """Returns sum over j <= i of (q_i . k_j) v_j, (B, H, T, D); the first `cached` keys lie before the first query."""
    tokens = q_BHTD.shape[2]
    state = k_BHSD[:, :, :cached].transpose(-1, -2) @ v_BHSD[:, :, :cached]
    q, k, v = (
        F.pad(x, (0, 0, 0, -tokens % CHUNK)).unflatten(2, (-1, CHUNK))
        for x in (q_BHTD, k_BHSD[:, :, cached:], v_BHSD[:, :, cached:])
    )
    sums = (k.transpose(-1, -2) @ v).cumsum(2)  # of each chunk and all earlier ones
    earlier = torch.cat((state[:, :, None], state[:, :, None] + sums[:, :, :-1]), 2)
    within = lower_triangle(q @ k.transpose(-1, -2)) @ v
    return (q @ earlier + within).flatten(2, 3)[:, :, :tokens]
