"""NTK-RoPE-mixed: frequency m is slowed by exp(a (m + 1)^b), between interpolation and NTK.

Su. Transformer Upgrade Path 11: Taking Beta-Base Positions to the End. 2023 (in Chinese).
https://kexue.fm/archives/9706, the mixed radix with lambda_1 >= lambda_2 >= ... of product k, b = 0.625.
Deviations: the article's log n factor is the extension log_n. The author's later code, github.com/bojone/rerope, has
b = 0.75. b = 0 is position interpolation, b = 1 is NTK-RoPE-fixed.
"""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling
from posbench.position.scheme import PositionScheme


@register("extension/ntk_mixed")
class NTKMixed(FrequencyScaling):
    """theta_m becomes theta_m * exp(-a (m + 1)^b), m = 0 .. M - 1, with a M^b = ln k; k is `factor`."""

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, factor: float | str = "auto", b: float = 0.625
    ) -> None:
        super().__init__(inner, context, factor)
        if not 0 <= b <= 1:
            raise ConfigError(f"b {b} of ntk_mixed: give a number from 0 to 1 (0.625 in the article)")
        self.b = b

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        count = len(inv_freq_M)
        step_M = torch.arange(1, count + 1, device=inv_freq_M.device).double()
        return inv_freq_M * torch.exp(-math.log(self.factor) * (step_M / count) ** self.b)
