"""ALiBi: a fixed penalty that grows linearly with distance.

Press, Smith, Lewis. Train Short, Test Long. ICLR 2022, section 3. arXiv:2108.12409.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/alibi")
class ALiBi(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - slope_h * (i - j)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.slope_H = slopes(shape.n_heads)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.penalty, cache_owner=self)

    def penalty(self, distance: Tensor) -> Tensor:
        """(H, *shape of distance) nats."""
        return -torch.tensordot(self.slope_H.to(distance.device), distance.double(), 0)


def slopes(heads: int) -> Tensor:
    """(H,) float64 nats per token; heads past a power of two fill the half steps, as the authors' code does."""
    base = 1 << (heads.bit_length() - 1)
    steps = torch.cat([torch.arange(1, base + 1), torch.arange(heads - base) + 0.5])
    return 2.0 ** (-8.0 / base * steps.double())
