"""Forgetting attention (FoX): every token multiplies by a gate what all tokens before it count for.

Lin et al. Forgetting Transformer: Softmax Attention with a Forget Gate. ICLR 2025, section 3. arXiv:2503.02130.
The attention alone, the paper's "FoX (LLaMA)": output gate, norms of queries and keys and token shift of its
"Pro" block belong to the block. One gate a head and layer from the normalised input, drawn at standard
deviation 0.02 without bias, as in the authors' code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.scheme import PositionScheme, Shape, Site, Traits
from posbench.terms import Separable, Term


class Forgetting(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + sum over l = j+1 .. i of log sigmoid(w_h . x_l + b_h)."""

    traits = Traits(relative=True)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight_LHW = nn.Parameter(0.02 * torch.randn(shape.layers, shape.heads, shape.width))
        self.bias_LH = nn.Parameter(torch.zeros(shape.layers, shape.heads))

    def term(self, site: Site) -> Term:
        gate_BSH = F.linear(site.x_BSW, self.weight_LHW[site.layer], self.bias_LH[site.layer])
        kept_BHS = kept(F.logsigmoid(gate_BSH.double()))
        return Separable(kept_BHS[..., -site.x_BTW.shape[1] :], -kept_BHS)


def kept(log_BSH: Tensor) -> Tensor:
    """(B, H, S) nats, float64: the sum up to each token; the difference of two is what is kept in between."""
    return log_BSH.cumsum(1).transpose(1, 2)
