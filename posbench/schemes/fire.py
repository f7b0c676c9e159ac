"""FIRE: a trained function of the distance as a part of the text so far, both on a logarithmic scale.

Li et al. Functional Interpolation for Relative Positions Improves Long Context Transformers. ICLR 2024.
arXiv:2310.04418. Constants of the paper's listing: 32 hidden units, c = 0.1, and a threshold of a quarter of
the training length (512 of 2048).
Each layer has its own. The last bias of the listing's MLP is left out: it adds the same to every pair, and the
softmax does not see it. Below the threshold the function is one of the distance alone, but the threshold is
trained: which queries lie below it is known on the device only, so that every pair is computed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.scheme import PositionScheme, Shape, Site, Traits
from posbench.terms import Elementwise, Term, exact


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
        return Elementwise(lambda q_pos, k_pos: self.bias(q_pos, k_pos, site.layer))

    def bias(self, q_pos_R1: Tensor, k_pos_1S: Tensor, layer: int) -> Tensor:
        """(H, R, S) nats."""
        c = self.c_L[layer].double().abs()
        least = (self.times_L[layer].double() * self.threshold).abs()
        part_RS = torch.log1p(c * (q_pos_R1 - k_pos_1S).clamp(min=0))
        part_RS = part_RS / (torch.log1p(c * torch.maximum(q_pos_R1.double(), least)) + 1e-6)
        return self.mlp(part_RS, layer)

    def mlp(self, part_RS: Tensor, layer: int) -> Tensor:
        """(H, R, S): sum_k out_hk relu(in_k x + bias_k), in float32 at least: x is a position.

        A broken line with a corner for each hidden unit: two numbers for each pair instead of all the units.
        """
        in_K, bias_K, out_HK = (exact(of[layer]) for of in (self.in_LK, self.bias_LK, self.out_LHK))
        order = torch.argsort((-bias_K / in_K).detach())
        corner_K = (-bias_K / in_K).detach()[order]
        rises_K = (in_K >= 0)[order]
        lines = []
        for of in (in_K, bias_K):
            # Of rising units those with corners before x, of falling ones those with corners after it.
            one_HK = (out_HK * of)[:, order]
            before = F.pad((one_HK * rises_K).cumsum(-1), (1, 0))
            after = F.pad((one_HK * ~rises_K).flip(-1).cumsum(-1).flip(-1), (0, 1))
            lines.append(before + after)
        x_RS = part_RS.to(in_K.dtype)
        piece_RS = torch.searchsorted(corner_K, x_RS.detach())
        slope_RSH, start_RSH = F.embedding(piece_RS, torch.cat(lines).T).chunk(2, -1)
        return torch.addcmul(start_RSH, slope_RSH, x_RS[..., None]).movedim(-1, 0)
