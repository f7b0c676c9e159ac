"""Llama 3.1's scaling: slow frequencies interpolated, fast ones kept, a ramp in rotations between them.

Llama Team. The Llama 3 Herd of Models. 2024. arXiv:2407.21783 (the base; the scaling came with Llama 3.1:
https://github.com/meta-llama/llama-models). As transformers' rope type `llama3`.
Without the long-context training of Llama 3.1. It is YaRN's ramp of the paper with other ends and without the
temperature.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.extension import Context, SpectrumExtension
from posbench.position.scheme import PositionScheme


class Llama3(SpectrumExtension):
    """theta_m becomes (1 - s_m) theta_m / k + s_m theta_m, s_m = clip((r_m - low) / (high - low)), r_m = L theta_m / 2 pi."""

    def __init__(
        self,
        inner: PositionScheme,
        context: Context,
        factor: float | str = "auto",
        low: float = 1.0,
        high: float = 4.0,
    ) -> None:
        super().__init__(inner, context)
        if not high > low > 0:
            raise ConfigError(f"llama3 low {low}, high {high}: give rotations with high > low > 0")
        self.low, self.high = low, high
        self.k = context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def spectrum(self, theta_M: Tensor) -> Tensor:
        rotations_M = theta_M * self.context.shape.train_len / (2 * math.pi)
        kept_M = ((rotations_M - self.low) / (self.high - self.low)).clamp(0, 1)
        return torch.lerp(theta_M / self.k, theta_M, kept_M)
