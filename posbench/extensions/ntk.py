"""NTK-aware scaling: rope_theta grows so that the slowest frequency is divided by k.

bloc97. NTK-Aware Scaled RoPE allows LLaMA models to have extended (8k+) context size without any fine-tuning and
minimal perplexity degradation. 2023. https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5,
rope_theta * k^(D / (D - 2)), the default.
Su. Transformer Upgrade Path 10: RoPE Is a Beta-Base Encoding. 2023 (in Chinese). https://kexue.fm/archives/9675,
rope_theta * k, which leaves the slowest frequency at k^(-1 + 2/D).
With factor auto it is known as dynamic NTK, with one factor for the whole evaluated sequence.
"""

import torch
from torch import Tensor

from posbench.errors import unknown
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling, NTKScaling
from posbench.position.scheme import PositionScheme

EXPONENTS = ("bloc97", "su")


@register("extension/ntk")
class NTK(FrequencyScaling):
    """theta_m becomes theta_m * k^(-m / (M - 1)) (bloc97) or theta_m * k^(-m / M) (su); k is `factor`."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        exponent: str = "bloc97",
    ) -> None:
        super().__init__(inner, context, factor)
        if exponent not in EXPONENTS:
            raise unknown("exponent of ntk", exponent, EXPONENTS)
        self.exponent = exponent

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        if self.exponent == "bloc97":
            return NTKScaling(self.factor)(inv_freq_M)
        count = len(inv_freq_M)
        return inv_freq_M * self.factor ** (-torch.arange(count, device=inv_freq_M.device).double() / count)
