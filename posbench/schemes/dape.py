"""DAPE: an additive position bias, adapted pair by pair to the content logits of all heads.

Zheng et al. DAPE: Data-Adaptive Positional Encoding for Length Extrapolation. NeurIPS 2024, section 3.
arXiv:2405.14722. With a kernel of 3 keys its successor, DAPE V2: Treat Attention Score as Feature Map for
Length Extrapolation. 2024, section 3. arXiv:2410.04798.
The bias is that of any scheme with a term, KERPLE's by default. The hidden layer is 32 wide with LeakyReLU and
drawn uniformly within fan_in^-0.5, as the authors' code has it. What is not visible reads 0, before the first
convolution as theirs and, unlike theirs, before the second: there the last row of a text differs from the same
row of a longer one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError
from posbench.position.biases import Rows, Term, WholeRow, exact
from posbench.position.compose import Stack
from posbench.position.pairwise_mlp import Network
from posbench.position.scheme import PositionScheme, Shape, Site

SLOPE = 0.01  # of LeakyReLU


class DAPE(Stack):
    """logit = s + b + f(s, b), s = q . k / sqrt(D), b the bias of `base`, f over the 2 H numbers of a pair.

    With a kernel of N keys f is two convolutions along the keys of a row.
    """

    def __init__(
        self, shape: Shape, base: Mapping[str, Any] | PositionScheme, hidden: int = 32, kernel: int = 1
    ) -> None:
        super().__init__(shape, [base])
        if hidden < 1 or kernel < 1 or kernel % 2 == 0:
            raise ConfigError(
                f"dape hidden {hidden}, kernel {kernel}: give a width of at least 1 and an odd number of keys"
            )
        self.kernel = kernel
        self.traits = replace(self.traits, mergeable=self.traits.mergeable and kernel == 1)
        layers, heads = shape.layers, shape.heads
        self.in_LKCN, self.in_LK = drawn(layers, hidden, 2 * heads, kernel)
        self.out_LHKN, self.out_LH = drawn(layers, heads, hidden, kernel)

    def term(self, site: Site) -> Term:
        bias = super().term(site)
        if bias is None:
            raise IncompatibleError(
                f"dape adapts an additive bias and {type(self.members[0]).__name__} has none: give it one that has"
            )

        def of(rows: Rows) -> Tensor:
            content_BHRS, heads = rows.content_BHRS, rows.content_BHRS.shape[1]
            weights = (self.in_LKCN, self.in_LK, self.out_LHKN, self.out_LH)
            into, into_K, onto, onto_H = (exact(weight[site.layer]) for weight in weights)
            bias_BHRS = bias.added(rows).to(content_BHRS.dtype)
            bias_BHRS = bias_BHRS[(None,) * (4 - bias_BHRS.dim())].expand(-1, heads, *content_BHRS.shape[2:])
            seen = None if self.kernel == 1 else rows.visible_RS.to(content_BHRS.dtype)
            # What the first layer makes of the bias is, mostly, the same for all sequences.
            read = bias_BHRS if seen is None else bias_BHRS * seen
            before = F.conv2d(read, into[:, heads:, None], into_K, padding=(0, self.kernel // 2))
            network = before, into[:, :heads], onto, SLOPE, seen, rows.seen_by_first
            return bias_BHRS + Network.apply(content_BHRS, *network) + onto_H[:, None, None]

        return WholeRow(of, site.q_BHTD, site.k_BHSD)


def drawn(layers: int, out: int, into: int, kernel: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights and biases of a layer of f, uniform within fan_in^-0.5."""
    reach = (into * kernel) ** -0.5
    return (
        nn.Parameter((2 * torch.rand(layers, out, into, kernel) - 1) * reach),
        nn.Parameter((2 * torch.rand(layers, out) - 1) * reach),
    )
