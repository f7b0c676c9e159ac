"""The base of YaRN and of extensions of it: slow frequencies interpolated, fast ones kept, a lower temperature."""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError, unknown
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling
from posbench.position.scheme import AttentionInputs, PositionScheme

# Linear in the number of rotations within the training length; in the index of the frequency, between whole indices;
# or between fractional indices, as in gpt-oss.
RAMPS = ("dimensions", "rotations", "fractional_dimensions")


class YaRNScaling(FrequencyScaling):
    """Frequencies between those that are kept and those that are divided by k, and a lower temperature.

    Peng et al. YaRN: Efficient Context Window Extension of Large Language Models. 2023, sections 3.2 to 3.4.
    arXiv:2309.00071.

    Args:
        factor: k; see `FactorExtension`.
        ramp: one of RAMPS, the quantity in which the share of a frequency that is kept is linear.
        beta_fast, beta_slow: rotations within the training length from which on frequencies are kept, and up to which they
            are divided by k.
        temperature: c in q . k * (c ln k + 1)^2.

    Raises:
        ConfigError: for another ramp, ends in another order, or a negative temperature.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        ramp: str = "dimensions",
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(inner, context, factor)
        name = type(self).__name__
        if ramp not in RAMPS:
            raise unknown(f"ramp of {name}", ramp, RAMPS)
        if not beta_fast > beta_slow > 0:
            raise ConfigError(
                f"{name} beta_fast {beta_fast}, beta_slow {beta_slow}: give rotations with beta_fast > beta_slow > 0"
            )
        if temperature < 0:
            raise ConfigError(
                f"{name} temperature {temperature}: give at least 0 (0.1 in the paper, 0 is off)"
            )
        self.ramp, self.beta_fast, self.beta_slow = ramp, beta_fast, beta_slow
        self.qk_scale = (temperature * math.log(self.factor) + 1) ** 2

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        if self.ramp == "rotations":
            kept_M = self.rotation_ramp(inv_freq_M, self.beta_slow, self.beta_fast)
        else:
            kept_M = self.dimension_ramp(inv_freq_M)
        return torch.lerp(inv_freq_M / self.factor, inv_freq_M, kept_M)

    def dimension_ramp(self, inv_freq_M: Tensor) -> Tensor:
        """Returns the (M,) kept shares of the authors' code, 0 to 1, linear in the index of a frequency between."""
        rotations_M = inv_freq_M * self.context.shape.train_len / (2 * math.pi)
        count = len(inv_freq_M)
        # Frequencies are geometric: the index at which a number of rotations lies is linear in its logarithm.
        fastest = rotations_M[0]
        step = torch.log(fastest / rotations_M[-1]) / (count - 1)
        low, high = (torch.log(fastest / rotations) / step for rotations in (self.beta_fast, self.beta_slow))
        if self.ramp == "dimensions":
            low, high = low.floor(), high.ceil()
        low, high = low.clamp(min=0), high.clamp(max=2 * count - 1)
        index_M = torch.arange(count, device=inv_freq_M.device)
        return 1 - ((index_M - low) / (high - low).clamp(min=0.001)).clamp(0, 1)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.scale_inner(self.qk_scale, inputs)
