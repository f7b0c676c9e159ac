"""T5: a trained bias for each bucket of distances, near distances alone and far ones together.

Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer. JMLR 2020,
section 2.1. arXiv:1910.10683. The causal buckets; one table for all layers.
T5 leaves out the factor 1/sqrt(D); here it stays, as for every scheme. A fractional distance falls in the
bucket of its integer part.
"""

import math

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.scheme import PositionScheme, Shape, Site, Traits
from posbench.terms import DistanceTable, Term, whole


class T5Bias(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + bias[bucket(i - j), h]."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: Shape, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        if buckets < 2 or max_distance <= buckets // 2:
            raise ConfigError(
                f"t5 with {buckets} buckets up to distance {max_distance}: give at least 2 buckets and a "
                "max_distance above half of them (32 and 128 in the paper)"
            )
        self.max_distance = max_distance
        self.bias_KH = nn.Parameter(torch.randn(buckets, shape.heads) * shape.width**-0.5)

    def term(self, site: Site) -> Term:
        return DistanceTable(self.bias)

    def bias(self, distance: Tensor) -> Tensor:
        """(H, *shape of distance) nats."""
        return self.bias_KH[bucket(distance, len(self.bias_KH), self.max_distance)].movedim(-1, 0)


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Half of the buckets hold one distance each, the others grow geometrically; the last holds the rest."""
    exact = buckets // 2
    near = whole(distance)
    octaves = torch.log(near.clamp(min=exact).double() / exact) / math.log(max_distance / exact)
    far = (exact + octaves * (buckets - exact)).long().clamp(max=buckets - 1)
    return torch.where(near < exact, near, far)
