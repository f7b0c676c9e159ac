"""DAPE: an additive position bias adapted to the content logits of all heads by a small MLP.

Zheng et al. DAPE: Data-Adaptive Positional Encoding for Length Extrapolation. NeurIPS 2024, section 3.
arXiv:2405.14722. With a kernel of 3 keys it is its successor, DAPE V2: Process Attention Score as Feature Map for
Length Extrapolation. ACL 2025, section 3. arXiv:2410.04798.
The bias is that of any scheme with an additive bias, KERPLE's by default. As in the authors' code, the hidden layer
has 32 units with LeakyReLU and weights are drawn uniformly within fan_in^-0.5. Pairs that are not visible are set to 0
before the first convolution, as in their code, and here also before the second. Deviation: without the second zeroing,
as in their code, the last row of a text differs from the same row within a longer text.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.compose import Stack, refuse_full_rows
from posbench.position.numerics import upcast
from posbench.position.pairwise_mlp import PairwiseMLP
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme

NEGATIVE_SLOPE = 0.01  # of LeakyReLU


@register("scheme/dape")
class DAPE(Stack):
    """logit = s + b + f(s, b), s = q . k / sqrt(D), b the bias of `bias_scheme`, f an MLP on the 2H numbers of a pair.

    With a kernel of N keys f is two convolutions along the keys of a row.
    """

    version = 2  # other sums, equal but for rounding
    decayed_parameters = ("in_LKCN", "out_LHKN")

    def __init__(
        self,
        shape: ModelShape,
        bias_scheme: Mapping[str, Any] | PositionScheme,
        mlp_width: int = 32,
        kernel_size: int = 1,
    ) -> None:
        super().__init__(shape, [bias_scheme])
        if mlp_width < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(
                f"dape mlp_width {mlp_width}, kernel_size {kernel_size}: give a width of at least 1 and an odd number of keys"
            )
        self.kernel_size = kernel_size
        self.traits = replace(self.traits, lse_mergeable=self.traits.lse_mergeable and kernel_size == 1)
        self.in_LKCN, self.in_LK = init_layer(shape.n_layers, mlp_width, 2 * shape.n_heads, kernel_size)
        self.out_LHKN, self.out_LH = init_layer(shape.n_layers, shape.n_heads, mlp_width, kernel_size)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        inner = super().attention_bias(inputs)
        if inner is None:
            raise IncompatibleError(
                f"dape adapts an additive bias and {type(self.members[0]).__name__} has none: give it one that has"
            )
        refuse_full_rows(inner, self)

        def bias(rows: QueryRows) -> Tensor:
            content_BHRS, heads = rows.content_BHRS, rows.content_BHRS.shape[1]
            weights = (self.in_LKCN, self.in_LK, self.out_LHKN, self.out_LH)
            in_KCN, in_K, out_HKN, out_H = (upcast(weight[inputs.layer]) for weight in weights)
            bias_BHRS = inner.value_from_rows(rows).to(content_BHRS.dtype)
            bias_BHRS = bias_BHRS[(None,) * (4 - bias_BHRS.dim())].expand(-1, heads, *content_BHRS.shape[2:])
            visible_RS = None if self.kernel_size == 1 else rows.visible_RS.to(content_BHRS.dtype)
            layers = in_KCN, in_K, out_HKN, NEGATIVE_SLOPE
            mlp = bias_BHRS, *layers, visible_RS, rows.keys_before_first_row
            return bias_BHRS + PairwiseMLP.apply(content_BHRS, *mlp) + out_H[:, None, None]

        return RowwiseBias(bias, inputs.q_BHTD, inputs.k_BHSD)


def init_layer(layers: int, out: int, into: int, kernel_size: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Returns the weight (layers, out, into, kernel_size) and bias (layers, out) of one layer of f."""
    bound = (into * kernel_size) ** -0.5
    sizes = (layers, out, into, kernel_size), (layers, out)
    weight, bias = (nn.Parameter((2 * torch.rand(size) - 1) * bound) for size in sizes)
    return weight, bias
