"""NTK-RoPE-mixed: frequencies slowed by radices that shrink, so that fast ones pay more of the factor than in NTK.

Su, 2023: https://kexue.fm/archives/9706 (lambda_1 >= lambda_2 >= ... with product k, b = 0.625).
The article's log n factor is an extension of its own. The author's later code, github.com/bojone/rerope, has
b = 0.75; b = 1 is NTK-RoPE-fixed.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext, FrequencyScaling
from posbench.position.scheme import PositionScheme


@register("extension/ntk_mixed")
class NTKMixed(FrequencyScaling):
    """theta_m becomes theta_m * exp(-a (m + 1)^b) over M frequencies, m = 0 .. M - 1, with a M^b = ln k."""

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, factor: float | str = "auto", b: float = 0.625
    ) -> None:
        super().__init__(inner, context)
        if not 0 <= b <= 1:
            raise ConfigError(f"b {b} of ntk_mixed: give a number from 0 to 1 (0.625 in the article)")
        self.b = b
        self.k = context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        count = len(inv_freq_M)
        step_M = torch.arange(1, count + 1, device=inv_freq_M.device).double()
        return inv_freq_M * torch.exp(-math.log(self.k) * (step_M / count) ** self.b)
