"""The parameters that the two variants of KERPLE share: how they are drawn and kept in their ranges.

Chi et al. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. NeurIPS 2022,
section 4. arXiv:2205.09921.
The authors' code clamps the stored parameters at 0.01 in every forward pass; here they are clamped on use and the
gradient passes through the clamp, so that a parameter outside its range can return, as theirs can.
"""

import torch
from torch import Tensor, nn

from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

MIN_PARAMETER = 0.01


class Kerple(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + penalty_h(i - j), p_h and a_h drawn uniformly from [0, 2) and [0, 1)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.p_H = nn.Parameter(2 * torch.rand(shape.n_heads))
        self.a_H = nn.Parameter(torch.rand(shape.n_heads))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.penalty)

    def penalty(self, distance: Tensor) -> Tensor:
        """Returns what is added to the logits at each distance, (H, *distance.shape) float64 nats."""
        raise NotImplementedError
