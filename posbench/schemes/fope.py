"""FoPE: RoPE whose pairs of dimensions each feel a fixed mixture of frequencies, and no untrained ones.

Hua et al. Fourier Position Embedding: Enhancing Attention's Periodic Extension for Length Generalization.
ICML 2025. arXiv:2412.17739.
As the authors' code, which trains no coefficient: the frequencies that turn a full circle within the training
length are kept; at most D/4 pairs carry a mixture, drawn around one frequency each; sine and cosine, heads and
layers have their own; the other pairs are multiplied by x + J x, J a quarter turn, at every position. The
coefficients come from the setting `draw`, not from the model's seed. Half-split pairs. There is a spectrum to
extend where two frequencies or more are left. Mixtures of positions are not relative.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.rotary import angles, frequencies, rotate
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class FoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p x = x * sum_k C_k cos(p theta_k) + J x * sum_k S_k sin(p theta_k)."""

    def __init__(self, shape: Shape, base: float = 10000.0, spread: float = 0.3, draw: int = 0) -> None:
        super().__init__()
        theta_M = frequencies(shape.head_dim, base)
        self.pairs = len(theta_M)
        self.theta_K = theta_M[theta_M >= 2 * math.pi / shape.train_len]
        kept, mixed = len(self.theta_K), min(len(self.theta_K), shape.head_dim // 4)
        if mixed < 1 or spread < 0:
            raise ConfigError(
                f"fope with spread {spread}, heads of {shape.head_dim} and a training length of {shape.train_len}: "
                "give a spread of at least 0 (0.3 in the paper's small model), heads of 4 dimensions and 7 tokens"
            )
        generator = torch.Generator().manual_seed(draw)
        size = (2, shape.layers, shape.heads, kept, mixed)
        # Glorot's, as torch counts the inputs and outputs of a (heads, kept, mixed) tensor.
        deviation = spread * math.sqrt(2 / (mixed * (kept + shape.heads)))
        near = torch.zeros(kept, mixed, dtype=torch.float64)
        chosen = torch.arange(0, kept, math.ceil(kept / mixed))
        near[chosen, torch.arange(len(chosen))] = 1.0
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        self.sin_LHKO, self.cos_LHKO = near + deviation * noise
        capabilities = {"positions", "spectrum"} if kept > 1 else {"positions"}
        self.traits = Traits(relative=False, capabilities=frozenset(capabilities))

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        sides = angles(self.theta_K, site, self)
        key = (self, site.layer, site.spectrum, sides[0][0].dtype)
        at_q, at_k = site.geo.memo(key, lambda: tuple(self.mix(*side, site.layer) for side in sides))
        q = rotate(site.q_BHTD, *at_q, interleaved=False)
        k = rotate(site.k_BHSD, *at_k, interleaved=False)
        return q.to(site.q_BHTD.dtype), k.to(site.k_BHSD.dtype)

    def mix(self, cos_TK: Tensor, sin_TK: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """(H, T, M): the mixtures in the place of cosine and sine."""
        mixed = []
        for wave_TK, by_layer in ((cos_TK, self.cos_LHKO), (sin_TK, self.sin_LHKO)):
            wave_HTO = wave_TK.double() @ by_layer[layer].to(wave_TK.device)
            full_HTM = F.pad(wave_HTO, (0, self.pairs - wave_HTO.shape[-1]), value=1.0)
            mixed.append(full_HTM.to(wave_TK.dtype))
        return mixed[0], mixed[1]
