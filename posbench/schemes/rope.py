"""RoPE: queries and keys turned by an angle proportional to their position.

Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021, section 3.2. arXiv:2104.09864.
"""

from torch import Tensor

from posbench.position.rotary import angles, frequencies, rotate
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class RoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p turning pair m by p * base^(-2m/D)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "spectrum"}))

    def __init__(self, shape: Shape, base: float = 10000.0, interleaved: bool = True) -> None:
        super().__init__()
        self.interleaved = interleaved
        self.theta_M = frequencies(shape.head_dim, base)

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        at_q, at_k = angles(self.theta_M, site, self)
        q = rotate(site.q_BHTD, *at_q, self.interleaved)
        k = rotate(site.k_BHSD, *at_k, self.interleaved)
        return q.to(site.q_BHTD.dtype), k.to(site.k_BHSD.dtype)
