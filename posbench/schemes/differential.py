"""Differential attention: the weights of one head minus lambda times those of another, over the values of both.

Ye et al. Differential Transformer. ICLR 2025, section 2.1. arXiv:2410.05258. As in transformers' DiffLlama: head h is
paired with head h + H/2; lambda is one number for each layer, from four trained vectors; lambda_init rises with the
layer, counted from 0; outputs of 2D dimensions are normalised without a trained gain. A model of H heads has H/2 pairs,
so parameters are those of the plain model. The weights may be negative: no extension can mask, split or scale them.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.attention import attend
from posbench.position.call import Kernel
from posbench.position.compose import Stack
from posbench.position.numerics import upcast
from posbench.position.scheme import AttentionInputs, ModelShape

EPS = 1e-5  # of the norm


@register("scheme/differential")
class Differential(Stack):
    """out_hi = (1 - c_l) RMSNorm(sum_j (w_hij - lambda_l w_h'ij) [v_hj, v_h'j]), h' = h + H/2, w the weights of `base_scheme`.

    lambda_l = exp(a_l . b_l) - exp(c_l . d_l) + c_l, c_l = 0.8 - 0.6 exp(-0.3 l).
    """

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any]) -> None:
        super().__init__(shape, [base_scheme])
        if shape.n_heads % 2:
            raise ConfigError(f"differential of {shape.n_heads} heads: give an even number, which form pairs")
        self.traits = replace(self.traits, softmax_attention=False)
        self.lambda_L4D = nn.Parameter(0.1 * torch.randn(shape.n_layers, 4, shape.head_dim))

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor:
        inner = self._members()[0]
        # Each head attends to the values of both heads of its pair: two calls are faster than values of 2D dimensions.
        first, second = (
            attend(inner, inputs, half.repeat(1, 2, 1, 1), kernel) for half in v_BHSD.chunk(2, 1)
        )
        plus, minus = upcast(torch.cat((first, second), -1)).chunk(2, 1)
        init = 0.8 - 0.6 * math.exp(-0.3 * inputs.layer)
        q1, k1, q2, k2 = upcast(self.lambda_L4D[inputs.layer])
        mixed = plus - ((q1 * k1).sum().exp() - (q2 * k2).sum().exp() + init) * minus
        out = (1 - init) * F.rms_norm(mixed, mixed.shape[-1:], eps=EPS)
        return (
            out.transpose(1, 2)
            .flatten(-2)
            .unflatten(-1, (v_BHSD.shape[1], -1))
            .transpose(1, 2)
            .to(v_BHSD.dtype)
        )
