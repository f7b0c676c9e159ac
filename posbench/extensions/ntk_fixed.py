"""NTK-RoPE-fixed: every frequency slowed by the next power of one ratio, the fastest among them.

Su, 2023: https://kexue.fm/archives/9706 (the mixed radix seen as lambda_1 = ... = lambda_{d/2}, lambda^(d/2) = k).
Beside bloc97's base, which leaves the fastest frequency alone, all powers are one step further.
"""

from typing import Any

import torch
from torch import Tensor

from posbench.position.extension import Context, SpectrumExtension
from posbench.position.scheme import PositionScheme


class NTKFixed(SpectrumExtension):
    """theta_m becomes theta_m * k^(-(m + 1) / M) over M frequencies, m = 0 .. M - 1."""

    def __init__(self, inner: PositionScheme, context: Context, factor: float | str = "auto") -> None:
        super().__init__(inner, context)
        self.k = context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def spectrum(self, theta_M: Tensor) -> Tensor:
        count = len(theta_M)
        step_M = torch.arange(1, count + 1, device=theta_M.device).double()
        return theta_M * self.k ** (-step_M / count)
