"""Selective RoPE: each token turns each pair of every head by an angle computed from it and the three tokens before.

Movahedi et al. Selective Rotary Position Embedding. ICLR 2026. arXiv:2511.17388. As in the authors' code
(github.com/timurcarstensen/selective-rope) in its configuration for language models: a projection of rank 32 of tokens
whose slices by head have unit length, a causal convolution over 4 tokens without activation, no bias, and RoPE's
frequencies of base 500000 as fixed temperatures; its phase gate is a setting, off there. Deviation: the taps start
uniform within 1/2, as convolutions do in torch; theirs start at standard deviation 0.02, where angles are nearly 0.
"""

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.causal_convolution import causal_convolution
from posbench.position.content_rotation import AccumulatedRotation, project
from posbench.position.numerics import autocast_disabled, upcast
from posbench.position.rotary import compute_inv_freq
from posbench.position.scheme import AttentionInputs, ModelShape

TAPS = 4  # tokens


@register("scheme/selective_rope")
class SelectiveRoPE(AccumulatedRotation):
    """logit(h, i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m by theta^(-2m/D) * sum over t <= p of (c * U V x^)_htm.

    x^ is x with slices by head of unit length, c * a convolution over 4 tokens; with `use_gate` times sigmoid(g_h . x^_t).
    """

    version = 2  # other sums, equal but for rounding
    decayed_parameters = ("down_LRW", "up_LPR", "tap_LPN")

    def __init__(
        self,
        shape: ModelShape,
        theta: float = 500000.0,
        phi_proj_rank: int = 32,
        use_gate: bool = False,
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        if phi_proj_rank < 1 or shape.d_model % shape.n_heads:
            raise ConfigError(
                f"selective_rope phi_proj_rank {phi_proj_rank}, width {shape.d_model}, {shape.n_heads} heads: give a rank "
                "of at least 1, and a width that the number of heads divides"
            )
        self.interleaved, self.n_heads = interleaved, shape.n_heads
        self.inv_freq_M = compute_inv_freq(shape.head_dim, theta, setting="theta")
        pairs = shape.n_heads * shape.head_dim // 2

        def drawn(out: int, into: int) -> nn.Parameter:
            return nn.Parameter(0.02 * torch.randn(shape.n_layers, out, into))

        self.down_LRW, self.up_LPR = drawn(phi_proj_rank, shape.d_model), drawn(pairs, phi_proj_rank)
        self.tap_LPN = nn.Parameter((2 * torch.rand(shape.n_layers, pairs, TAPS) - 1) * TAPS**-0.5)
        self.gate_LHW = drawn(shape.n_heads, shape.d_model) if use_gate else None
        self.gate_bias_LH = nn.Parameter(torch.zeros(shape.n_layers, shape.n_heads)) if use_gate else None

    def angles(self, inputs: AttentionInputs) -> Tensor:
        assert inputs.x_BSW is not None
        x_BSHD, layer = upcast(inputs.x_BSW).unflatten(-1, (self.n_heads, -1)), inputs.layer
        x_BSW = (x_BSHD * torch.rsqrt(x_BSHD.square().sum(-1, keepdim=True) + 1e-6)).flatten(-2)
        low_BSP = project(project(x_BSW, self.down_LRW[layer]), self.up_LPR[layer])
        low_BHSM = low_BSP.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        with autocast_disabled(low_BSP):
            step_BHSM = causal_convolution(upcast(low_BHSM), upcast(self.tap_LPN[layer]))
        if self.gate_LHW is not None and self.gate_bias_LH is not None:
            gate_BSH = project(x_BSW, self.gate_LHW[layer], self.gate_bias_LH[layer]).sigmoid()
            step_BHSM = step_BHSM * gate_BSH.transpose(1, 2)[..., None]
        inv_freq_M = inputs.geo.memo((self, "inv_freq"), lambda: self.inv_freq_M.to(step_BHSM.device))
        return step_BHSM.cumsum(2, dtype=torch.float64) * inv_freq_M
