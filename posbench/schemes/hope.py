"""HoPE: RoPE with only the frequencies that turn a full circle within the training length.

Chen et al. HoPE: A Novel Positional Encoding Without Long-Term Decay for Enhanced Context Awareness and
Extrapolation. ACL 2025. arXiv:2410.21216. Not the HoPE of arXiv:2509.05218.
The other pairs of dimensions do not turn. It has a spectrum to extend where two frequencies or more are left.
"""

import math

from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.rotary import angles, frequencies, rotate, still
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class HoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p turning pair m by p * theta_m where theta_m >= 2 pi / L."""

    def __init__(self, shape: Shape, base: float = 10000.0, interleaved: bool = True) -> None:
        super().__init__()
        theta_M = frequencies(shape.head_dim, base)
        self.interleaved, self.pairs = interleaved, len(theta_M)
        self.theta_M = theta_M[theta_M >= 2 * math.pi / shape.train_len]
        if len(self.theta_M) < 1:
            raise ConfigError(
                f"hope with a training length of {shape.train_len}: no frequency turns a full circle within it; train "
                "on at least 7 tokens"
            )
        capabilities = {"positions", "spectrum"} if len(self.theta_M) > 1 else {"positions"}
        self.traits = Traits(relative=True, capabilities=frozenset(capabilities))

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        at_q, at_k = (still(at, self.pairs) for at in angles(self.theta_M, site, self))
        q = rotate(site.q_BHTD, *at_q, self.interleaved)
        k = rotate(site.k_BHSD, *at_k, self.interleaved)
        return q.to(site.q_BHTD.dtype), k.to(site.k_BHSD.dtype)
