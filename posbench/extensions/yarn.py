"""YaRN: slow frequencies interpolated, fast ones kept, a ramp between them, and a lower temperature.

Peng et al. YaRN: Efficient Context Window Extension of Large Language Models. 2023, sections 3.2 and 3.4.
arXiv:2309.00071.
Without fine-tuning. The paper's ramp is linear in the number of rotations within the training length
(`rotations`), its code's in the index of the frequency between whole indices (`dimensions`, the default, as
in everything published since): up to 144% apart. The temperature is a gain on the logits, its square root on
q and on k in the paper, and leaves additive terms alone.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError, unknown
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext, FrequencyScaling
from posbench.position.scheme import AttentionInputs, PositionScheme

RAMPS = ("dimensions", "rotations")


@register("extension/yarn")
class YaRN(FrequencyScaling):
    """theta_m becomes (1 - r_m) theta_m / k + r_m theta_m, and q . k is multiplied by (temperature * ln k + 1)^2."""

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
        super().__init__(inner, context)
        if ramp not in RAMPS:
            raise unknown("ramp of yarn", ramp, RAMPS)
        if not beta_fast > beta_slow > 0:
            raise ConfigError(
                f"yarn beta_fast {beta_fast}, beta_slow {beta_slow}: give rotations with beta_fast > beta_slow > 0"
            )
        if temperature < 0:
            raise ConfigError(f"yarn temperature {temperature}: give at least 0 (0.1 in the paper, 0 is off)")
        self.ramp, self.beta_fast, self.beta_slow = ramp, beta_fast, beta_slow
        self.k = context.factor(factor)
        self.qk_scale = (temperature * math.log(self.k) + 1) ** 2
        self.depends_on_length(factor)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        return torch.lerp(inv_freq_M / self.k, inv_freq_M, self.kept(inv_freq_M))

    def kept(self, inv_freq_M: Tensor) -> Tensor:
        """(M,) r: 0 is interpolated, 1 is left alone."""
        rotations_M = inv_freq_M * self.context.shape.train_len / (2 * math.pi)
        if self.ramp == "rotations":
            return ((rotations_M - self.beta_slow) / (self.beta_fast - self.beta_slow)).clamp(0, 1)
        count = len(inv_freq_M)
        # The spectrum is geometric: the index at which a number of rotations lies is linear in its logarithm.
        fastest = rotations_M[0]
        step = torch.log(fastest / rotations_M[-1]) / (count - 1)
        low = (torch.log(fastest / self.beta_fast) / step).floor().clamp(min=0)
        high = (torch.log(fastest / self.beta_slow) / step).ceil().clamp(max=2 * count - 1)
        index_M = torch.arange(count, device=inv_freq_M.device)
        return 1 - ((index_M - low) / (high - low).clamp(min=0.001)).clamp(0, 1)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.scale_inner(self.qk_scale, inputs)
