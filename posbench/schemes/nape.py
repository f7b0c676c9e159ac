"""NAPE: half of the heads have ALiBi's penalty with slopes 1, 1/2, 1/3, ..., the other half no positions.

Vasylenko et al. Long-Context Generalization with Sparse Attention. ICLR 2026. arXiv:2506.16640. Slopes as in
the authors' code (github.com/deep-spin/asentmax). Of an odd number of heads one more is without positions.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

# Nats. Weights below e^-80 are set to 0: those near e^-90 are denormal numbers, which slow a CPU down.
NEGLIGIBLE, HIDDEN = -80.0, -1e4


@register("scheme/nape")
class NAPE(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - (i - j) / h for heads h = 1 .. H/2, and q_i . k_j / sqrt(D) for the others."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        if shape.n_heads < 2:
            raise ConfigError("nape of 1 head: give at least 2, of which half have positions")
        head_H = torch.arange(1, shape.n_heads + 1)
        self.slope_H = torch.where(head_H <= shape.n_heads // 2, 1 / head_H.double(), 0.0)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.penalty, cache_owner=self)

    def penalty(self, distance: Tensor) -> Tensor:
        """Returns what is added to the logits at each distance, (H, *distance.shape) float64 nats."""
        penalty = -torch.tensordot(self.slope_H.to(distance.device), distance.double(), 0)
        return torch.where(penalty > NEGLIGIBLE, penalty, HIDDEN)
