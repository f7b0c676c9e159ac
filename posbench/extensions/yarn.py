"""YaRN: slow frequencies interpolated, fast ones kept, and a lower softmax temperature.

Peng et al. YaRN: Efficient Context Window Extension of Large Language Models. 2023, sections 3.2 and 3.4.
arXiv:2309.00071. The paper's ramp is linear in the number of rotations within the training length (`rotations`),
that of its code in the index of the frequency, between whole indices (`dimensions`, the default, as in everything
published since). Frequencies of the two differ by up to 144%.
Deviations: without fine-tuning. The temperature is one factor on the logits, where the paper has its square root on
q and on k, and leaves additive terms unchanged.
"""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError, unknown
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling
from posbench.position.scheme import AttentionInputs, PositionScheme

RAMPS = ("dimensions", "rotations")


@register("extension/yarn")
class YaRN(FrequencyScaling):
    """theta_m becomes (1 - r_m) theta_m / k + r_m theta_m, and q . k is multiplied by (temperature * ln k + 1)^2.

    k is `factor`; the ramp r is 0 below `beta_slow` rotations within the training length and 1 above `beta_fast`.
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
        if ramp not in RAMPS:
            raise unknown("ramp of yarn", ramp, RAMPS)
        if not beta_fast > beta_slow > 0:
            raise ConfigError(
                f"yarn beta_fast {beta_fast}, beta_slow {beta_slow}: give rotations with beta_fast > beta_slow > 0"
            )
        if temperature < 0:
            raise ConfigError(f"yarn temperature {temperature}: give at least 0 (0.1 in the paper, 0 is off)")
        self.ramp, self.beta_fast, self.beta_slow = ramp, beta_fast, beta_slow
        self.qk_scale = (temperature * math.log(self.factor) + 1) ** 2

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        if self.ramp == "rotations":
            kept_M = self.rotation_ramp(inv_freq_M, self.beta_slow, self.beta_fast)
        else:
            kept_M = self.dimension_ramp(inv_freq_M)
        return torch.lerp(inv_freq_M / self.factor, inv_freq_M, kept_M)

    def dimension_ramp(self, inv_freq_M: Tensor) -> Tensor:
        """(M,) r of the authors' code: 0 is interpolated, 1 is kept, linear in the index of the frequency between."""
        rotations_M = inv_freq_M * self.context.shape.train_len / (2 * math.pi)
        count = len(inv_freq_M)
        # Frequencies are geometric: the index at which a number of rotations lies is linear in its logarithm.
        fastest = rotations_M[0]
        step = torch.log(fastest / rotations_M[-1]) / (count - 1)
        low = (torch.log(fastest / self.beta_fast) / step).floor().clamp(min=0)
        high = (torch.log(fastest / self.beta_slow) / step).ceil().clamp(max=2 * count - 1)
        index_M = torch.arange(count, device=inv_freq_M.device)
        return 1 - ((index_M - low) / (high - low).clamp(min=0.001)).clamp(0, 1)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.scale_inner(self.qk_scale, inputs)
