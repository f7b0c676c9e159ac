"""ALiBi: a fixed linear penalty on the distance, with a different slope for each head.

Press, Smith, Lewis. Train Short, Test Long. ICLR 2022, section 3. arXiv:2108.12409.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.alibi_slopes import alibi_slopes
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/alibi")
class ALiBi(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - slope_h * (i - j)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.slope_H = alibi_slopes(shape.n_heads)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.penalty, cache_owner=self)

    def penalty(self, distance: Tensor) -> Tensor:
        """Returns what is added to the logits at each distance, (H, *distance.shape) float64 nats."""
        return -torch.tensordot(self.slope_H.to(distance.device), distance.double(), 0)
