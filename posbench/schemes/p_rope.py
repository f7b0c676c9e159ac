"""p-RoPE: RoPE without its slowest frequencies, whose dimensions are left to carry meaning at any distance.

Barbero et al. Round and Round We Go! What makes Rotary Positional Encodings useful? ICLR 2025.
arXiv:2410.06205. As "proportional" in Hugging Face's transformers.
Not partial rotary: the frequencies that stay are those of the whole head. Extensions of the spectrum change
the ones that stay.
"""

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, pad_unrotated, rotary_cos_sin, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/p_rope")
class PRoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p turning pair m by p * rope_theta^(-2m/D) for m < p D/2, else not."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "inv_freq"}))

    def __init__(
        self,
        shape: ModelShape,
        partial_rotary_factor: float = 0.75,
        rope_theta: float = 10000.0,
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        kept = int(partial_rotary_factor * len(inv_freq_M)) if 0 < partial_rotary_factor <= 1 else 0
        if kept < 1:
            raise ConfigError(
                f"p_rope partial_rotary_factor {partial_rotary_factor}: give a part of the {len(inv_freq_M)} frequencies of a head, at most 1 "
                "and large enough for one of them"
            )
        self.interleaved, self.pairs = interleaved, len(inv_freq_M)
        self.inv_freq_M = inv_freq_M[:kept]

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        at_q, at_k = (pad_unrotated(at, self.pairs) for at in rotary_cos_sin(self.inv_freq_M, inputs, self))
        q = rotate(inputs.q_BHTD, *at_q, self.interleaved)
        k = rotate(inputs.k_BHSD, *at_k, self.interleaved)
        return q.to(inputs.q_BHTD.dtype), k.to(inputs.k_BHSD.dtype)
