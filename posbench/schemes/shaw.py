"""Shaw: a trained vector for each clipped distance, added to the keys and to the values.

Shaw, Uszkoreit, Vaswani. Self-Attention with Relative Position Representations. NAACL 2018, sections 3.1 to
3.3. arXiv:1803.02155.
Only distances of a causal model have a row, clip + 1 of them. Tables are shared by heads and not by layers,
as in the paper's big model, and drawn Glorot-uniform. A fractional distance uses the row of its integer part.
"""

import math

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.position.biases import PairValue, QueryContent, Term, whole
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class Shaw(PositionScheme):
    """logit(i, j) = q_i . (k_j + aK[c]) / sqrt(D), output_i = sum_j softmax_ij (v_j + aV[c]), c = min(i - j, clip)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: Shape, clip: int = 16) -> None:
        super().__init__()
        if clip < 1:
            raise ConfigError(f"shaw clip {clip}: give the largest distance told apart, at least 1 token")
        self.clip = clip
        self.key_LKD, self.value_LKD = (
            nn.Parameter(glorot(shape.layers, clip + 1, shape.head_dim)) for _ in ("key", "value")
        )

    def term(self, site: Site) -> Term:
        table_KD = self.key_LKD[site.layer]
        return QueryContent(site.q_BHTD @ table_KD.T / math.sqrt(table_KD.shape[1]), self.row)

    def value(self, site: Site) -> PairValue:
        return PairValue(self.value_LKD[site.layer], self.row, self.clip)

    def row(self, distance: Tensor) -> Tensor:
        """The row of the tables for each distance."""
        return whole(distance).clamp(max=self.clip)


def glorot(layers: int, rows: int, dims: int) -> Tensor:
    """(layers, rows, dims), each layer uniform within sqrt(6 / (rows + dims))."""
    return (2 * torch.rand(layers, rows, dims) - 1) * math.sqrt(6 / (rows + dims))
