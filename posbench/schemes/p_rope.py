"""p-RoPE: RoPE without its lowest frequencies.

Barbero et al. Round and Round We Go! What makes Rotary Positional Encodings useful? ICLR 2025,
section 6.1. arXiv:2410.06205. The rope type `proportional` of transformers.
Dimensions without a frequency carry content at any distance. Unlike in partial RoPE, the kept frequencies are those
of the whole head; extensions change these.
"""

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotate_qk
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/p_rope")
class PRoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m < f D/2 by p * rope_theta^(-2m/D), not the others.

    f is `partial_rotary_factor`.
    """

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
        self.interleaved, self.inv_freq_M = interleaved, inv_freq_M[:kept]

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return rotate_qk(self.inv_freq_M, inputs, self, self.interleaved)
