"""Contextual GRAPE-M: RoPE with trained frequencies, at positions that advance by less than one at each token.

Zhang et al. Group Representational Position Encoding. ICLR 2026, contextual, commuting. arXiv:2512.07805.
As in the authors' code (github.com/model-architectures/GRAPE, llama-mha-grape-m-ctx): one position for all heads, the
sum of the steps of earlier tokens, and frequencies of each layer shared by its heads; steps start at 0.39. Deviation:
the difference to RoPE's log frequencies is stored, which bfloat16 rounds less. Extensions change the frequencies.
"""

import math

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.content_rotation import AccumulatedRotation, project
from posbench.position.rotary import compute_inv_freq, transform_inv_freq
from posbench.position.scheme import AttentionInputs, ModelShape, Traits

INIT_BIAS = math.log(math.expm1(1e-3))


@register("scheme/grape_m_contextual")
class GrapeMContextual(AccumulatedRotation):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m by theta_m * sum over t < p of sigmoid((w . x_t + b) / s).

    theta_m = rope_theta^(-2m/D) * exp(f_lm), s is `omega_scale`.
    """

    traits = Traits(
        relative=True, pairwise=False, reads_hidden_states=True, capabilities=frozenset({"inv_freq"})
    )

    decayed_parameters = ("weight_L1W",)

    def __init__(
        self,
        shape: ModelShape,
        rope_theta: float = 10000.0,
        omega_scale: float = 16.0,
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < omega_scale < math.inf:
            raise ConfigError(
                f"grape_m_contextual omega_scale {omega_scale}: give a number above 0 (16 there)"
            )
        self.interleaved, self.omega_scale = interleaved, omega_scale
        self.init_inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        self.log_LM = nn.Parameter(torch.zeros(shape.n_layers, shape.head_dim // 2))
        self.weight_L1W = nn.Parameter(
            0.5 * shape.d_model**-0.5 * torch.randn(shape.n_layers, 1, shape.d_model)
        )
        self.bias_L1 = nn.Parameter(torch.full((shape.n_layers, 1), INIT_BIAS))

    def angles(self, inputs: AttentionInputs) -> Tensor:
        assert inputs.x_BSW is not None
        layer = inputs.layer
        omega_BS1 = project(inputs.x_BSW, self.weight_L1W[layer], self.bias_L1[layer]) / self.omega_scale
        step_B1S = omega_BS1.mT.sigmoid().double()
        init_inv_freq_M = inputs.geo.memo((self, "init"), lambda: self.init_inv_freq_M.to(step_B1S.device))
        inv_freq_M = init_inv_freq_M * self.log_LM[layer].double().exp()
        return (step_B1S.cumsum(2) - step_B1S)[..., None] * transform_inv_freq(inv_freq_M, inputs)
