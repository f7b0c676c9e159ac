"""Sandwich: of the products of sinusoidal embeddings, the one of two positions, as a fixed bias.

Chi et al. Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis. ACL 2023,
appendix E. arXiv:2212.10356.
The compression by head, 8h/H, is that of the paper's listing.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.biases import DistanceTable, Term
from posbench.position.rotary import frequencies
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class Sandwich(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + H/(8h) * sum_m cos((i - j) * 10000^(-2m/d)), h = 1 .. H, m < d/2."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: Shape, dims: int = 128, base: float = 10000.0) -> None:
        super().__init__()
        if dims < 2:
            raise ConfigError(f"sandwich dims {dims}: give an even number of at least 2 (128 in the paper)")
        self.theta = frequencies(dims, base, of="sandwich dims").tolist()
        self.strength_H = shape.heads / (8 * torch.arange(1, shape.heads + 1, dtype=torch.float64))

    def term(self, site: Site) -> Term:
        return DistanceTable(self.bias, fixed=self)

    def bias(self, distance: Tensor) -> Tensor:
        """(H, *shape of distance) float64 nats."""
        exact = distance.double()
        # One frequency at a time: d/2 of them at once would not fit for pairs that share no distances.
        waves = torch.zeros_like(exact)
        for theta in self.theta:
            waves = waves + torch.cos(exact * theta)
        return torch.tensordot(self.strength_H.to(distance.device), waves, 0)
