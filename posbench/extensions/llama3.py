"""Llama 3.1 scaling: slow frequencies interpolated, fast ones kept, and a ramp between them.

Llama Team. The Llama 3 Herd of Models. 2024. arXiv:2407.21783 (rope_theta; the scaling came with the code of
Llama 3.1, https://github.com/meta-llama/llama-models). As transformers' rope type `llama3`.
It is the ramp of YaRN's paper with other ends and without its temperature.
Deviations: without the long-context training of Llama 3.1.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling
from posbench.position.scheme import PositionScheme


@register("extension/llama3")
class Llama3(FrequencyScaling):
    """theta_m becomes (1 - s_m) theta_m / k + s_m theta_m, s_m = clip((r_m - low) / (high - low), 0, 1), k is `factor`.

    r_m = L theta_m / 2 pi are the rotations within the training length L.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
    ) -> None:
        super().__init__(inner, context, factor)
        if not high_freq_factor > low_freq_factor > 0:
            raise ConfigError(
                f"llama3 low_freq_factor {low_freq_factor}, high_freq_factor {high_freq_factor}: give rotations "
                "with high_freq_factor > low_freq_factor > 0"
            )
        self.low_freq_factor, self.high_freq_factor = low_freq_factor, high_freq_factor

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        kept_M = self.rotation_ramp(inv_freq_M, self.low_freq_factor, self.high_freq_factor)
        return torch.lerp(inv_freq_M / self.factor, inv_freq_M, kept_M)
