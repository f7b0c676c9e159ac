"""Partial RoPE: only the first dimensions of a head turn, at the frequencies of a head of that size.

Black et al. GPT-NeoX-20B: An Open-Source Autoregressive Language Model. 2022 (a quarter).
arXiv:2204.06745. First in GPT-J; half of the head in ChatGLM and StableLM 2's kin.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.rotary import angles, frequencies, rotate
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class PartialRoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p turning pair m < r/2 by p * base^(-2m/r), r = fraction * D."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "spectrum"}))

    def __init__(
        self, shape: Shape, fraction: float = 0.5, base: float = 10000.0, interleaved: bool = True
    ) -> None:
        super().__init__()
        self.dims = int(fraction * shape.head_dim) if 0 < fraction <= 1 else 0
        if self.dims < 2 or self.dims % 2:
            raise ConfigError(
                f"partial_rope fraction {fraction} of a head of {shape.head_dim} dimensions: give a part of it, at "
                "most 1, that is an even number of dimensions"
            )
        self.interleaved = interleaved
        self.theta_M = frequencies(self.dims, base)

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        at_q, at_k = angles(self.theta_M, site, self)
        return self.turn(site.q_BHTD, at_q), self.turn(site.k_BHSD, at_k)

    def turn(self, x_BHTD: Tensor, at_TM: tuple[Tensor, Tensor]) -> Tensor:
        """The first dimensions turned, the others as they are."""
        turned = rotate(x_BHTD[..., : self.dims], *at_TM, self.interleaved)
        return torch.cat((turned.to(x_BHTD.dtype), x_BHTD[..., self.dims :]), -1)
