"""MrRoPE-Pro: middle frequencies slowed by a factor whose logarithm grows quadratically, and YaRN's temperature.

Tian et al. MrRoPE: Mixed-radix Rotary Position Embedding. ICLR 2026, section 3, equations 14 to 16.
arXiv:2601.22181. The bounds of the middle frequencies and the temperature are YaRN's, as in the paper. Its appendices and
the authors' code were not available.
Deviations: where no frequency is above `beta_fast` rotations, middle ones begin at the fastest; where none is below
`beta_slow`, they end after the slowest. The temperature is one factor on the logits and leaves additive terms unchanged.
"""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/mrrope_pro")
class MrRoPEPro(FrequencyScaling):
    """theta_m becomes theta_m * k^(-t (t + 1) / (n (n + 1))), t = clip(m - lo, 0, n), n = hi - lo.

    k is `factor`; lo is the last frequency with more than `beta_fast` rotations within the training length, hi the
    first with fewer than `beta_slow`. q . k is multiplied by (temperature * ln k + 1)^2.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(inner, context, factor)
        if not beta_fast > beta_slow > 0:
            raise ConfigError(
                f"mrrope_pro beta_fast {beta_fast}, beta_slow {beta_slow}: give rotations with beta_fast > beta_slow > 0"
            )
        if temperature < 0:
            raise ConfigError(
                f"mrrope_pro temperature {temperature}: give at least 0 (0.1 in the paper, 0 is off)"
            )
        self.beta_fast, self.beta_slow = beta_fast, beta_slow
        self.qk_scale = (temperature * math.log(self.factor) + 1) ** 2

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        rotations_M = inv_freq_M * self.context.shape.train_len / (2 * math.pi)
        low = ((rotations_M > self.beta_fast).sum() - 1).clamp(min=0)
        high = (rotations_M >= self.beta_slow).sum()
        count = (high - low).clamp(min=1)
        index_M = torch.arange(len(inv_freq_M), device=inv_freq_M.device)
        step_M = (index_M - low).clamp(min=0).double()
        exponent_M = torch.where(index_M < high, step_M * (step_M + 1) / (count * (count + 1)), 1.0)
        return inv_freq_M * self.factor**-exponent_M

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.scale_inner(self.qk_scale, inputs)
