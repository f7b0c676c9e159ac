"""FIRE: a trained function of the distance as a part of the text so far, both on a logarithmic scale.

Li et al. Functional Interpolation for Relative Positions Improves Long Context Transformers. ICLR 2024.
arXiv:2310.04418. Constants of the paper's listing: 32 hidden units, c = 0.1, and a threshold of a quarter of
the training length (512 of 2048).
Each layer has its own. The last bias of the listing's MLP is left out: it adds the same to every pair, and the
softmax does not see it. Below the threshold the function is one of the distance alone, but the threshold is
trained: which queries lie below it is known on the device only, so that every visible pair is computed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.position.biases import DistanceTable, Term, exact, unrounded
from posbench.position.geometry import Geometry
from posbench.position.pairwise_mlp import Network
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class FIRE(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + f_h(psi(i - j) / psi(max(i, T))), psi(x) = log(|c| x + 1), f an MLP."""

    traits = Traits(relative=False, capabilities=frozenset({"positions"}))

    def __init__(
        self, shape: Shape, hidden: int = 32, c: float = 0.1, threshold: float | None = None
    ) -> None:
        super().__init__()
        if hidden < 1 or not c > 0 or (threshold is not None and not threshold > 0):
            raise ConfigError(
                f"fire hidden {hidden}, c {c}, threshold {threshold}: give at least 1 unit, c and threshold above 0, or "
                "null for a threshold of a quarter of the training length"
            )
        self.threshold = shape.train_len / 4 if threshold is None else threshold
        self.c_L, self.times_L = (nn.Parameter(torch.full((shape.layers,), x)) for x in (c, 1.0))
        self.in_LK, self.bias_LK = (nn.Parameter(2 * torch.rand(shape.layers, hidden) - 1) for _ in "wb")
        out = (2 * torch.rand(shape.layers, shape.heads, hidden) - 1) * hidden**-0.5
        self.out_LHK = nn.Parameter(out)

    def term(self, site: Site) -> Term:
        return Interpolated(self, site.layer)


@dataclass(frozen=True, eq=False)
class Interpolated(Term):
    """A network of a distance table over a number of the query."""

    scheme: FIRE
    layer: int

    def logits(self, geo: Geometry, rows: slice) -> Tensor:
        own, layer = self.scheme, self.layer
        in_K, bias_K, out_HK = (exact(of[layer]) for of in (own.in_LK, own.bias_LK, own.out_LHK))
        c = own.c_L[layer].double().abs()
        least = (own.times_L[layer].double() * own.threshold).abs()
        far_R = torch.log1p(c * torch.maximum(geo.q_pos_T[rows].double(), least)) + 1e-6
        near = DistanceTable(lambda n: torch.log1p(c * n)[None].to(in_K.dtype))
        part_1RS = near.logits(geo, rows) / far_R.to(in_K.dtype)[:, None]
        seen_by_first = (geo.before or 0) + (rows.start or 0) if geo.ordered else None
        with unrounded(part_1RS):
            one = in_K[:, None, None], out_HK[..., None]
            return Network.apply(part_1RS[None], bias_K[None, :, None, None], *one, 0.0, None, seen_by_first)[
                0
            ]
