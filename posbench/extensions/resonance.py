"""Resonance RoPE: wavelengths are rounded to whole numbers of tokens, so that rotations repeat exactly.

Wang et al. Resonance RoPE: Improving Context Length Generalization of Large Language Models. ACL Findings 2024.
arXiv:2403.00071. With `factor` above 1 the wavelengths of YaRN are rounded, as in the authors'
github.com/sheryc/resonance_rope.
Deviations: around a trained model, where the paper trains with it.
"""

import math
from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.scheme import PositionScheme
from posbench.position.yarn import YaRNScaling


@register("extension/resonance")
class Resonance(YaRNScaling):
    """The wavelength 2 pi / theta_m, theta_m scaled by YaRN, becomes the nearest whole number of tokens.

    Frequencies that are 0 stay 0. The settings behind `integer_wavelengths` are YaRN's.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = 1.0,
        integer_wavelengths: bool = True,
        ramp: str = "dimensions",
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(inner, context, factor, ramp, beta_fast, beta_slow, temperature)
        self.integer_wavelengths = integer_wavelengths

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1, "integer_wavelengths": False}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        inv_freq_M = super().scale_inv_freq(inv_freq_M)
        if not self.integer_wavelengths:
            return inv_freq_M
        return 2 * math.pi / (2 * math.pi / inv_freq_M).round().clamp(min=1)
