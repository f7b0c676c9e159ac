"""GRAPE-M: RoPE whose frequencies are trained.

Zhang et al. Group Representational Position Encoding. 2025, multiplicative, commuting. arXiv:2512.07805.
As the authors' code (github.com/model-architectures/GRAPE, llama-mha-grape-m-nonctx): planes of coordinates,
RoPE's frequencies to start from, their logarithms trained at 1/16 of the stored scale, a spectrum for each
layer and none for each head. What is stored is the difference to RoPE's, which bfloat16 rounds less. The contextual and the non-commuting variants are not part of it.
Extensions change the trained frequencies.
"""

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/grape_m")
class GrapeM(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p turning pair m by p * exp(w_lm / log_freq_scale), w_lm trained."""

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
        dtype = torch.float64 if inputs.q_BHTD.dtype == torch.float64 else torch.float32
        init_inv_freq_M = inputs.geo.memo(
            (self, "start"), lambda: self.init_inv_freq_M.to(inputs.q_BHTD.device)
        )
        inv_freq_M = init_inv_freq_M * (self.log_LM[inputs.layer].double() / self.log_freq_scale).exp()
        for change in reversed(inputs.inv_freq_transforms):
            inv_freq_M = change(inv_freq_M)
        turned = []
        for x_BHTD, pos_T in ((inputs.q_BHTD, inputs.geo.q_pos_T), (inputs.k_BHSD, inputs.geo.k_pos_S)):
            angle_TM = pos_T.double()[:, None] * inv_freq_M
            cos_TM, sin_TM = angle_TM.cos().to(dtype), angle_TM.sin().to(dtype)
            turned.append(rotate(x_BHTD, cos_TM, sin_TM, self.interleaved).to(x_BHTD.dtype))
        return turned[0], turned[1]
