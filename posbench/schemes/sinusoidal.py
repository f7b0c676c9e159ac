"""Sinusoidal: fixed sines and cosines of the position, added to the token embeddings.

Vaswani et al. Attention Is All You Need. NeurIPS 2017, section 3.5. arXiv:1706.03762.
Sine and cosine alternate, as printed; most ports put all sines first, which is a permutation of the width.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.rotary import compute_inv_freq
from posbench.position.scheme import ModelShape, PositionScheme, Traits


@register("scheme/sinusoidal")
class Sinusoidal(PositionScheme):
    """x_p + scale * PE(p), with PE[2m] = sin(p * base^(-2m/W)) and PE[2m+1] the cosine of the same."""

    traits = Traits(relative=False, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, base: float = 10000.0, scale: float = 1.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ConfigError(f"sinusoidal scale {scale}: give a number above 0 (1 in the paper)")
        self.scale = scale
        self.inv_freq_M = compute_inv_freq(shape.d_model, base, of="width", setting="base")

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        if layer > 0:
            return x_BTW
        return x_BTW + geo.memo((self, x_BTW.dtype), lambda: self.table(geo.q_pos_T).to(x_BTW.dtype))

    def table(self, pos_T: Tensor) -> Tensor:
        """(T, W) float64: what is added at each position."""
        angle_TM = pos_T.double()[:, None] * self.inv_freq_M.to(pos_T.device)
        return self.scale * torch.stack((angle_TM.sin(), angle_TM.cos()), -1).flatten(-2)
