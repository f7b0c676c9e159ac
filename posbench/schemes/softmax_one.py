"""Softmax-one: 1 is added to the softmax denominator, so that a query may attend to nothing.

Miller. Attention Is Off By One. 2023: https://www.evanmiller.org/attention-is-off-by-one.html.
It encodes no order, so its configuration stacks it on RoPE.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/softmax_one")
class SoftmaxOne(PositionScheme):
    """weight(i, j) = exp(logit(i, j)) / (1 + sum_l exp(logit(i, l)))."""

    traits = Traits(relative=True)

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor]:
        return lambda lse_BHT: torch.logaddexp(lse_BHT, torch.zeros_like(lse_BHT))
