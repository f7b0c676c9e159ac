"""FoPE: RoPE with a fixed mixture of frequencies for each pair of dimensions, low ones removed.

Hua et al. Fourier Position Embedding: Enhancing Attention's Periodic Extension for Length Generalization.
ICML 2025. arXiv:2412.17739.
As in the authors' code, no coefficient is trained. The frequencies that complete a period within the training
length are kept; at most D/4 pairs have a mixture, drawn around one frequency each; sine and cosine, heads and layers
have their own; the other pairs are multiplied by x + J x, J a quarter turn, at every position. The coefficients
depend on the setting `seed`, not on the model's seed. Half-split pairs. Extensions that scale frequencies need at least two
kept ones. Mixtures of positions are not relative.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.rotary import compute_inv_freq, rotary_cos_sin, rotate
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/fope")
class FoPE(PositionScheme):
    """logit(i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p x = x * sum_k C_k cos(p theta_k) + J x * sum_k S_k sin(p theta_k)."""

    def __init__(
        self, shape: ModelShape, rope_theta: float = 10000.0, init_norm_gain: float = 0.3, seed: int = 0
    ) -> None:
        super().__init__()
        inv_freq_M = compute_inv_freq(shape.head_dim, rope_theta)
        self.n_pairs = len(inv_freq_M)
        self.inv_freq_K = inv_freq_M[inv_freq_M >= 2 * math.pi / shape.train_len]
        kept, mixed = len(self.inv_freq_K), min(len(self.inv_freq_K), shape.head_dim // 4)
        if mixed < 1 or not 0 <= init_norm_gain <= 1e6:
            raise ConfigError(
                f"fope with init_norm_gain {init_norm_gain}, heads of {shape.head_dim} and a training length of {shape.train_len}: "
                "give an init_norm_gain of 0 to 1e6 (0.3 in the paper's small model), heads of 4 dimensions and 7 tokens"
            )
        generator = torch.Generator().manual_seed(seed)
        size = (2, shape.n_layers, shape.n_heads, kept, mixed)
        # Glorot's standard deviation with the fans that torch counts in a (heads, kept, mixed) tensor.
        deviation = init_norm_gain * math.sqrt(2 / (mixed * (kept + shape.n_heads)))
        center = torch.zeros(kept, mixed, dtype=torch.float64)
        chosen = torch.arange(0, kept, math.ceil(kept / mixed))
        center[chosen, torch.arange(len(chosen))] = 1.0
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        self.sin_LHKO, self.cos_LHKO = center + deviation * noise
        capabilities = {"positions", "inv_freq"} if kept > 1 else {"positions"}
        self.traits = Traits(relative=False, capabilities=frozenset(capabilities))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        sides = rotary_cos_sin(self.inv_freq_K, inputs, self)
        key = (self, inputs.layer, inputs.inv_freq_transforms, sides[0][0].dtype)
        at_q, at_k = inputs.geo.memo(key, lambda: tuple(self.mix(*side, inputs.layer) for side in sides))
        q = rotate(inputs.q_BHTD, *at_q, interleaved=False)
        return q, rotate(inputs.k_BHSD, *at_k, interleaved=False)

    def mix(self, cos_TK: Tensor, sin_TK: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Returns the mixtures that replace cosine and sine in a layer, (H, T, M) each; 1 for pairs without a mixture."""
        mixed = []
        for wave_TK, weight_LHKO in ((cos_TK, self.cos_LHKO), (sin_TK, self.sin_LHKO)):
            wave_HTO = wave_TK.double() @ weight_LHKO[layer].to(wave_TK.device)
            full_HTM = F.pad(wave_HTO, (0, self.n_pairs - wave_HTO.shape[-1]), value=1.0)
            mixed.append(full_HTM.to(wave_TK.dtype))
        return mixed[0], mixed[1]
