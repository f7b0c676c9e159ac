"""Gated attention: a sigmoid gate, computed from the query's token, on the output of every head.

Qiu et al. Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free. NeurIPS 2025.
arXiv:2505.06708. As in the authors' code and in Qwen3-Next, the gate reads the normalised
input of the layer, has no bias and stands before the output projection; its weights start at standard deviation 0.02,
where every gate is about 1/2. It changes the output of another scheme.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.compose import Stack
from posbench.position.scheme import ModelShape


@register("scheme/gated_attention")
class GatedAttention(Stack):
    """output_hi = sigmoid(W_h x_i) * attention_hi, with the attention of `base_scheme`.

    Args:
        gate: "elementwise", a gate for each of the D elements of a head, or "headwise", one for each head.
    """

    decayed_parameters = ("weight_LGW",)

    def __init__(
        self,
        shape: ModelShape,
        base_scheme: Mapping[str, Any],
        gate: Literal["elementwise", "headwise"] = "elementwise",
    ) -> None:
        super().__init__(shape, [base_scheme])
        self.n_heads = shape.n_heads
        gates = shape.n_heads * (shape.head_dim if gate == "elementwise" else 1)
        self.weight_LGW = nn.Parameter(0.02 * torch.randn(shape.n_layers, gates, shape.d_model))

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        gate_BTHE = F.linear(x_BTW, self.weight_LGW[layer]).unflatten(-1, (self.n_heads, -1))
        return super().attention_output(out_BHTD, x_BTW, layer) * gate_BTHE.sigmoid().transpose(1, 2)
