"""Kimi Delta Attention (KDA): a gated delta rule with a decay for each channel of the keys.

Kimi Team. Kimi Linear: An Expressive, Efficient Attention Architecture. 2025. arXiv:2510.26692.
The layer of Kimi Linear: convolutions of 4 tokens with SiLU, queries and keys of length 1, projections of the decay
and the gate through the dimension of a head, and a norm of each head, gated by a sigmoid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.numerics import upcast
from posbench.position.recurrence import (
    Recurrence,
    initial_rates,
    initial_step_biases,
    normalize,
    recur,
    rms_norm,
)
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/kda")
class KDA(Recurrence):
    """out_i = S_i^T q_i / sqrt(D), S_i = (I - b_i k_i k_i^T) diag(a_i) S_(i-1) + b_i k_i v_i^T, then a gated norm.

    a_i = exp(-A_h softplus(W x_i + c)) for each of the D channels, b_i = sigmoid(u_h . x_i).
    """

    decayed_parameters = (
        *("conv_LCN", "decay_down_LDW", "decay_up_LCD"),
        *("gate_down_LDW", "gate_up_LCD", "beta_LHW"),
    )

    def __init__(self, shape: ModelShape, min_head_dim: int = 48) -> None:
        super().__init__(shape, min_head_dim)
        shape = self.shape
        layers, heads, width, dim = shape.n_layers, shape.n_heads, shape.d_model, shape.head_dim

        def weight(*size: int) -> nn.Parameter:
            return nn.Parameter(0.02 * torch.randn(layers, *size))

        self.decay_down_LDW, self.decay_up_LCD = weight(dim, width), weight(heads * dim, dim)
        self.gate_down_LDW, self.gate_up_LCD = weight(dim, width), weight(heads * dim, dim)
        self.beta_LHW = weight(heads, width)
        self.rate_log_LH = nn.Parameter(initial_rates(1, 16, layers, heads))
        self.step_bias_LC = nn.Parameter(initial_step_biases(layers, heads * dim))
        self.norm_LD = nn.Parameter(torch.ones(layers, dim))

    def mix(self, inputs: AttentionInputs, v_BHSD: Tensor) -> Tensor:
        layer, x_BSW = inputs.layer, inputs.x_BSW
        assert x_BSW is not None
        q, k, v = self.convolve(inputs, v_BHSD)
        wide_BSC = F.linear(F.linear(x_BSW, self.decay_down_LDW[layer]), self.decay_up_LCD[layer])
        step_BHSD = self._heads(F.softplus(upcast(wide_BSC) + self.step_bias_LC[layer]))
        log_decay = -self.rate_log_LH[layer].exp()[:, None, None] * step_BHSD
        beta_BHS = upcast(F.linear(x_BSW, self.beta_LHW[layer])).sigmoid().mT
        q = normalize(q) * q.shape[-1] ** -0.5
        out_BHSD = recur(q, normalize(k), v, log_decay, beta_BHS).to(v_BHSD.dtype)
        return out_BHSD[:, :, -inputs.q_BHTD.shape[2] :]

    def gate(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        gate_BTC = F.linear(F.linear(x_BTW, self.gate_down_LDW[layer]), self.gate_up_LCD[layer])
        return rms_norm(out_BHTD, self.norm_LD[layer]) * self._heads(gate_BTC).sigmoid()

    def _heads(self, x_BSC: Tensor) -> Tensor:
        return x_BSC.unflatten(-1, (self.shape.n_heads, -1)).transpose(1, 2)
