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
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext, FrequencyScaling
from posbench.position.scheme import PositionScheme


@register("extension/llama3")
class Llama3(FrequencyScaling):
    """theta_m becomes (1 - s_m) theta_m / k + s_m theta_m, s_m = clip((r_m - low) / (high - low)), r_m = L theta_m / 2 pi."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
    ) -> None:
        super().__init__(inner, context)
        if not high_freq_factor > low_freq_factor > 0:
            raise ConfigError(
                f"llama3 low_freq_factor {low_freq_factor}, high_freq_factor {high_freq_factor}: give rotations with high_freq_factor > low_freq_factor > 0"
            )
        self.low_freq_factor, self.high_freq_factor = low_freq_factor, high_freq_factor
        self.k = context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        rotations_M = inv_freq_M * self.context.shape.train_len / (2 * math.pi)
        kept_M = (
            (rotations_M - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        ).clamp(0, 1)
        return torch.lerp(inv_freq_M / self.k, inv_freq_M, kept_M)
