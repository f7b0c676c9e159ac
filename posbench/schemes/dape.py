"""DAPE: an additive position bias, adapted pair by pair to the content logits of all heads.

Zheng et al. DAPE: Data-Adaptive Positional Encoding for Length Extrapolation. NeurIPS 2024, section 3.
arXiv:2405.14722. With a kernel of 3 keys its successor, DAPE V2: Treat Attention Score as Feature Map for
Length Extrapolation. 2024, section 3. arXiv:2410.04798.
The bias is that of any scheme with a term, KERPLE's by default. The hidden layer is 32 wide with LeakyReLU and
drawn uniformly within fan_in^-0.5, as the authors' code has it. What is not visible reads 0, before the first
convolution as theirs and, unlike theirs, before the second: there the last row of a text differs from the same
row of a longer one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.compose import Stack
from posbench.position.numerics import upcast
from posbench.position.pairwise_mlp import PairwiseMLP
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme

SLOPE = 0.01  # of LeakyReLU


@register("scheme/dape")
class DAPE(Stack):
    """logit = s + b + f(s, b), s = q . k / sqrt(D), b the bias of `bias_scheme`, f over the 2 H numbers of a pair.

    With a kernel of N keys f is two convolutions along the keys of a row.
    """

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
        self.in_LKCN, self.in_LK = drawn(shape.n_layers, mlp_width, 2 * shape.n_heads, kernel_size)
        self.out_LHKN, self.out_LH = drawn(shape.n_layers, shape.n_heads, mlp_width, kernel_size)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        bias = super().attention_bias(inputs)
        if bias is None:
            raise IncompatibleError(
                f"dape adapts an additive bias and {type(self.members[0]).__name__} has none: give it one that has"
            )

        def of(rows: QueryRows) -> Tensor:
            content_BHRS, heads = rows.content_BHRS, rows.content_BHRS.shape[1]
            weights = (self.in_LKCN, self.in_LK, self.out_LHKN, self.out_LH)
            into, into_K, onto, onto_H = (upcast(weight[inputs.layer]) for weight in weights)
            bias_BHRS = bias.value_from_rows(rows).to(content_BHRS.dtype)
            bias_BHRS = bias_BHRS[(None,) * (4 - bias_BHRS.dim())].expand(-1, heads, *content_BHRS.shape[2:])
            seen = None if self.kernel_size == 1 else rows.visible_RS.to(content_BHRS.dtype)
            # What the first layer makes of the bias is, mostly, the same for all sequences.
            read = bias_BHRS if seen is None else bias_BHRS * seen
            before = F.conv2d(read, into[:, heads:, None], into_K, padding=(0, self.kernel_size // 2))
            network = before, into[:, :heads], onto, SLOPE, seen, rows.keys_before_first_row
            return bias_BHRS + PairwiseMLP.apply(content_BHRS, *network) + onto_H[:, None, None]

        return RowwiseBias(of, inputs.q_BHTD, inputs.k_BHSD)


def drawn(layers: int, out: int, into: int, kernel_size: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights and biases of a layer of f, uniform within fan_in^-0.5."""
    reach, sizes = (into * kernel_size) ** -0.5, ((layers, out, into, kernel_size), (layers, out))
    weight, bias = (nn.Parameter((2 * torch.rand(size) - 1) * reach) for size in sizes)
    return weight, bias
