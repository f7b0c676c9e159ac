"""Gated DeltaNet: a linear recurrence that forgets by a gate and overwrites by the delta rule.

Yang, Kautz, Hatamizadeh. Gated Delta Networks: Improving Mamba2 with Delta Rule. ICLR 2025.
arXiv:2412.06464. The layer of Qwen3-Next: convolutions of 4 tokens with SiLU, queries and keys of length 1, and a
norm of each head, gated by SiLU; c starts as in the authors' code. Deviation: keys and values have d_model
dimensions in all (theirs: 3/4 and 3/2 of d_model).
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


@register("scheme/gated_deltanet")
class GatedDeltaNet(Recurrence):
    """out_i = S_i^T q_i / sqrt(D), S_i = a_i (I - b_i k_i k_i^T) S_(i-1) + b_i k_i v_i^T, then a gated norm.

    a_i = exp(-A_h softplus(w_h . x_i + c_h)), b_i = sigmoid(u_h . x_i).
    """

    decayed_parameters = ("conv_LCN", "decay_LHW", "beta_LHW", "gate_LCW")

    def __init__(self, shape: ModelShape, min_head_dim: int = 48) -> None:
        super().__init__(shape, min_head_dim)
        shape = self.shape
        layers, heads, width = shape.n_layers, shape.n_heads, shape.d_model
        self.decay_LHW = nn.Parameter(0.02 * torch.randn(layers, heads, width))
        self.beta_LHW = nn.Parameter(0.02 * torch.randn(layers, heads, width))
        self.gate_LCW = nn.Parameter(0.02 * torch.randn(layers, heads * shape.head_dim, width))
        self.rate_log_LH = nn.Parameter(initial_rates(0.01, 16, layers, heads))
        self.step_bias_LH = nn.Parameter(initial_step_biases(layers, heads))
        self.norm_LD = nn.Parameter(torch.ones(layers, shape.head_dim))

    def mix(self, inputs: AttentionInputs, v_BHSD: Tensor) -> Tensor:
        layer, x_BSW = inputs.layer, inputs.x_BSW
        assert x_BSW is not None
        q, k, v = self.convolve(inputs, v_BHSD)
        step_BSH = F.softplus(upcast(F.linear(x_BSW, self.decay_LHW[layer])) + self.step_bias_LH[layer])
        log_decay = (-self.rate_log_LH[layer].exp() * step_BSH).mT[..., None]
        beta_BHS = upcast(F.linear(x_BSW, self.beta_LHW[layer])).sigmoid().mT
        q = normalize(q) * q.shape[-1] ** -0.5
        out_BHSD = recur(q, normalize(k), v, log_decay, beta_BHS).to(v_BHSD.dtype)
        return out_BHSD[:, :, -inputs.q_BHTD.shape[2] :]

    def gate(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        gate_BHTD = (
            F.linear(x_BTW, self.gate_LCW[layer]).unflatten(-1, (self.shape.n_heads, -1)).transpose(1, 2)
        )
        return rms_norm(out_BHTD, self.norm_LD[layer]) * F.silu(gate_BHTD)
