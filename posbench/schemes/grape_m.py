"""GRAPE-M: RoPE with trained frequencies.

Zhang et al. Group Representational Position Encoding. ICLR 2026, section 3.1, commuting. arXiv:2512.07805.
As in the authors' code (github.com/model-architectures/GRAPE, llama-mha-grape-m-nonctx): planes of two coordinates,
initialized to RoPE's frequencies, log frequencies divided by 16, frequencies of each layer shared by its heads.
Deviation: the difference to RoPE's log frequencies is stored, which bfloat16 rounds less. The contextual
variant is the scheme grape_m_contextual; the non-commuting one is not implemented. Extensions change the trained frequencies.
"""

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, cos_sin, rotary_dtype, rotate, transform_inv_freq
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/grape_m")
class GrapeM(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m by p * rope_theta^(-2m/D) * exp(w_lm / log_freq_scale)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "inv_freq"}))

    def __init__(
        self,
        shape: ModelShape,
        rope_theta: float = 10000.0,
        log_freq_scale: float = 16.0,
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        if not log_freq_scale > 0:
            raise ConfigError(
                f"grape_m log_freq_scale {log_freq_scale}: give a number above 0 (16 in the authors' code)"
            )
        self.interleaved, self.log_freq_scale = interleaved, log_freq_scale
        self.init_inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        self.log_LM = nn.Parameter(torch.zeros(shape.n_layers, shape.head_dim // 2))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        dtype, geo = rotary_dtype(inputs.q_BHTD), inputs.geo
        init_inv_freq_M = geo.memo((self, "init"), lambda: self.init_inv_freq_M.to(inputs.q_BHTD.device))
        inv_freq_M = init_inv_freq_M * (self.log_LM[inputs.layer].double() / self.log_freq_scale).exp()
        inv_freq_M = transform_inv_freq(inv_freq_M, inputs)
        # Not kept on the geometry: the frequencies have gradients.
        q = rotate(inputs.q_BHTD, *cos_sin(geo.q_pos_T, inv_freq_M, dtype), self.interleaved)
        return q, rotate(inputs.k_BHSD, *cos_sin(geo.k_pos_S, inv_freq_M, dtype), self.interleaved)
