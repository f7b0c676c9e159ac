"""p-RoPE: RoPE without its slowest frequencies, whose dimensions are left to carry meaning at any distance.

Barbero et al. Round and Round We Go! What makes Rotary Positional Encodings useful? ICLR 2025.
arXiv:2410.06205. As "proportional" in Hugging Face's transformers.
Not partial rotary: the frequencies that stay are those of the whole head. Extensions of the spectrum change
the ones that stay.
"""

from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.rotary import angles, frequencies, rotate, still
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class PRoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p turning pair m by p * base^(-2m/D) for m < p D/2, else not."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "spectrum"}))

    def __init__(
        self, shape: Shape, proportion: float = 0.75, base: float = 10000.0, interleaved: bool = True
    ) -> None:
        super().__init__()
        theta_M = frequencies(shape.head_dim, base)
        kept = int(proportion * len(theta_M)) if 0 < proportion <= 1 else 0
        if kept < 1:
            raise ConfigError(
                f"p_rope proportion {proportion}: give a part of the {len(theta_M)} frequencies of a head, at most 1 "
                "and large enough for one of them"
            )
        self.interleaved, self.pairs = interleaved, len(theta_M)
        self.theta_M = theta_M[:kept]

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        at_q, at_k = (still(at, self.pairs) for at in angles(self.theta_M, site, self))
        q = rotate(site.q_BHTD, *at_q, self.interleaved)
        k = rotate(site.k_BHSD, *at_k, self.interleaved)
        return q.to(site.q_BHTD.dtype), k.to(site.k_BHSD.dtype)
