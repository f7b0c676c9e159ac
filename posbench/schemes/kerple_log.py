"""KERPLE, logarithmic: a trained penalty that grows with the logarithm of the distance.

Chi et al. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. NeurIPS 2022,
section 4. arXiv:2205.09921.
The authors' code clamps the stored parameters at 0.01 in every forward pass; here the clamp is applied on
use and its gradient passes through, so that a parameter below it can come back, as theirs can.
"""

import torch
from torch import Tensor, nn

from posbench.scheme import PositionScheme, Shape, Site, Traits
from posbench.terms import DistanceTable, Term

LEAST = 0.01


class KerpleLog(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - p_h * log(1 + a_h * (i - j)), with p, a >= 0.01."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.p_H = nn.Parameter(2 * torch.rand(shape.heads))
        self.a_H = nn.Parameter(torch.rand(shape.heads))

    def term(self, site: Site) -> Term:
        return DistanceTable(self.penalty)

    def penalty(self, distance: Tensor) -> Tensor:
        """(H, *shape of distance) float64 nats."""
        growth = torch.log1p(torch.tensordot(positive(self.a_H), distance.double(), 0))
        return -torch.einsum("h,h...->h...", positive(self.p_H), growth)


def positive(parameter: Tensor) -> Tensor:
    """At least 0.01, in float64, with the gradient of the identity."""
    exact = parameter.double()
    return exact + (exact.clamp(min=LEAST) - exact).detach()
