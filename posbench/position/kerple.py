"""KERPLE's two trained penalties of the distance, of one shape: how they are drawn, kept in their ranges, and asked for.

Chi et al. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. NeurIPS 2022,
section 4. arXiv:2205.09921.
The authors' code clamps the stored parameters at 0.01 in every forward pass; here the clamp is applied on use and
its gradient passes through, so that a parameter outside can come back, as theirs can.
"""

import torch
from torch import Tensor, nn

from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

LEAST = 0.01


class Kerple(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + penalty_h(i - j), p_h and a_h drawn from [0, 2) and [0, 1)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.p_H = nn.Parameter(2 * torch.rand(shape.n_heads))
        self.a_H = nn.Parameter(torch.rand(shape.n_heads))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.penalty)

    def penalty(self, distance: Tensor) -> Tensor:
        """(H, *shape of distance) float64 nats."""
        raise NotImplementedError


def within(parameter: Tensor, most: float = torch.inf) -> Tensor:
    """Between 0.01 and `most`, in float64, with the gradient of the identity."""
    exact = parameter.double()
    return exact + (exact.clamp(LEAST, most) - exact).detach()
