"""Mamba-2: a state space model whose state decays by a gate, without a delta rule.

Dao, Gu. Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality.
ICML 2024. arXiv:2405.21060. Queries, keys and values of the model are its C, B and x, with a group
of B and C for each head. Deviations: the inner width is the model's, not twice as wide, the state has as many rows as
a head has dimensions, not 128, and the block keeps its MLP.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.numerics import upcast
from posbench.position.recurrence import EPSILON, Recurrence, initial_rates, initial_step_biases, recur
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/mamba2")
class Mamba2(Recurrence):
    """out_i = S_i^T q_i + e_h v_i, S_i = exp(-A_h t_i) S_(i-1) + t_i k_i v_i^T, then a norm of the gated output.

    t_i = softplus(w_h . x_i + c_h).
    """

    decayed_parameters = ("conv_LCN", "step_LHW", "gate_LCW")

    def __init__(self, shape: ModelShape, min_head_dim: int = 48) -> None:
        super().__init__(shape, min_head_dim, bias=True)
        shape = self.shape
        layers, heads, width = shape.n_layers, shape.n_heads, shape.d_model
        self.step_LHW = nn.Parameter(0.02 * torch.randn(layers, heads, width))
        self.gate_LCW = nn.Parameter(0.02 * torch.randn(layers, heads * shape.head_dim, width))
        self.rate_log_LH = nn.Parameter(initial_rates(1, 16, layers, heads))
        self.step_bias_LH = nn.Parameter(initial_step_biases(layers, heads))
        self.skip_LH = nn.Parameter(torch.ones(layers, heads))
        self.norm_LC = nn.Parameter(torch.ones(layers, heads * shape.head_dim))

    def mix(self, inputs: AttentionInputs, v_BHSD: Tensor) -> Tensor:
        layer, x_BSW = inputs.layer, inputs.x_BSW
        assert x_BSW is not None
        q, k, v = self.convolve(inputs, v_BHSD)
        step_BSH = F.softplus(upcast(F.linear(x_BSW, self.step_LHW[layer])) + self.step_bias_LH[layer])
        step = step_BSH.mT[..., None]
        log_decay = -self.rate_log_LH[layer].exp()[:, None, None] * step
        out = recur(q, k, step * v, log_decay) + self.skip_LH[layer][:, None, None] * v
        return out.to(v_BHSD.dtype)[:, :, -inputs.q_BHTD.shape[2] :]

    def gate(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        gate_BTC = F.linear(x_BTW, self.gate_LCW[layer])
        gated_BHTD = out_BHTD * F.silu(gate_BTC).unflatten(-1, (self.shape.n_heads, -1)).transpose(1, 2)
        weight_HTD = self.norm_LC[layer].unflatten(0, (self.shape.n_heads, 1, -1))
        return F.rms_norm(gated_BHTD, gated_BHTD.shape[-1:], None, EPSILON) * weight_HTD.to(out_BHTD.dtype)
