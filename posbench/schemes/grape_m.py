"""GRAPE-M: RoPE whose frequencies are trained.

Zhang et al. Group Representational Position Encoding. 2025, multiplicative, commuting. arXiv:2512.07805.
As the authors' code (github.com/model-architectures/GRAPE, llama-mha-grape-m-nonctx): planes of coordinates,
RoPE's frequencies to start from, their logarithms trained at 1/16 of the stored scale, a spectrum for each
layer and none for each head. What is stored is the difference to RoPE's, which bfloat16 rounds less. The contextual and the non-commuting variants are not part of it.
Extensions change the trained frequencies.
"""

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.position.rotary import frequencies, rotate
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class GrapeM(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p turning pair m by p * exp(w_lm / slowing), w_lm trained."""

    traits = Traits(relative=True, capabilities=frozenset({"positions", "spectrum"}))

    def __init__(
        self, shape: Shape, base: float = 10000.0, slowing: float = 16.0, interleaved: bool = True
    ) -> None:
        super().__init__()
        if not slowing > 0:
            raise ConfigError(f"grape_m slowing {slowing}: give a number above 0 (16 in the authors' code)")
        self.interleaved, self.slowing = interleaved, slowing
        self.start_M = frequencies(shape.head_dim, base)
        self.log_LM = nn.Parameter(torch.zeros(shape.layers, shape.head_dim // 2))

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        dtype = torch.float64 if site.q_BHTD.dtype == torch.float64 else torch.float32
        start_M = site.geo.memo((self, "start"), lambda: self.start_M.to(site.q_BHTD.device))
        theta_M = start_M * (self.log_LM[site.layer].double() / self.slowing).exp()
        for change in reversed(site.spectrum):
            theta_M = change(theta_M)
        turned = []
        for x_BHTD, pos_T in ((site.q_BHTD, site.geo.q_pos_T), (site.k_BHSD, site.geo.k_pos_S)):
            angle_TM = pos_T.double()[:, None] * theta_M
            cos_TM, sin_TM = angle_TM.cos().to(dtype), angle_TM.sin().to(dtype)
            turned.append(rotate(x_BHTD, cos_TM, sin_TM, self.interleaved).to(x_BHTD.dtype))
        return turned[0], turned[1]
