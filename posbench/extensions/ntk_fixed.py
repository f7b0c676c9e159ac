"""NTK-RoPE-fixed: every frequency slowed by the next power of one ratio, the fastest among them.

Su, 2023: https://kexue.fm/archives/9706 (the mixed radix seen as lambda_1 = ... = lambda_{d/2}, lambda^(d/2) = k).
Beside bloc97's base, which leaves the fastest frequency alone, all powers are one step further.
"""

from typing import Any

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext, FrequencyScaling
from posbench.position.scheme import PositionScheme


@register("extension/ntk_fixed")
class NTKFixed(FrequencyScaling):
    """theta_m becomes theta_m * k^(-(m + 1) / M) over M frequencies, m = 0 .. M - 1."""

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, factor: float | str = "auto"
    ) -> None:
        super().__init__(inner, context)
        self.k = context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        count = len(inv_freq_M)
        step_M = torch.arange(1, count + 1, device=inv_freq_M.device).double()
        return inv_freq_M * self.k ** (-step_M / count)
