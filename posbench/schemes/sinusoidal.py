"""Sinusoidal: fixed sines and cosines of the position, added to the token embeddings.

Vaswani et al. Attention Is All You Need. NeurIPS 2017, section 3.5. arXiv:1706.03762.
Sines and cosines alternate, as printed; most ports put all sines first, which permutes the dimensions.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.rotary import compute_inv_freq, cos_sin
from posbench.position.scheme import ModelShape, PositionScheme, Traits


@register("scheme/sinusoidal")
class Sinusoidal(PositionScheme):
    """x_p + scale * PE(p), PE[2m] = sin(p * base^(-2m/d_model)) and PE[2m+1] the cosine of the same angle."""

    traits = Traits(relative=False, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, base: float = 10000.0, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale <= 1e6:
            raise ConfigError(
                f"sinusoidal scale {scale}: give a number above 0 and at most 1e6 (1 in the paper)"
            )
        self.scale = scale
        self.inv_freq_M = compute_inv_freq(shape.d_model, base, of="width", setting="base")

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        if layer > 0:
            return x_BTW
        return x_BTW + geo.memo((self, x_BTW.dtype), lambda: self.table(geo.q_pos_T).to(x_BTW.dtype))

    def table(self, pos_T: Tensor) -> Tensor:
        """Returns what is added at each position, (T, W) float64."""
        cos_TM, sin_TM = cos_sin(pos_T, self.inv_freq_M.to(pos_T.device), torch.float64)
        return self.scale * torch.stack((sin_TM, cos_TM), -1).flatten(-2)
