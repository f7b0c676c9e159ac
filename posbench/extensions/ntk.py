"""NTK-aware scaling: a larger base of the rotation, so that fast frequencies stay and the slowest goes to 1/k.

bloc97, 2023: https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5 (base * k^(d/(d-2)), the default).
Su, 2023: https://kexue.fm/archives/9675 (base * k, which leaves the slowest frequency at k^(-1+2/d)).
With factor auto it is what is called dynamic NTK, the factor fixed for the whole evaluated sequence.
"""

from typing import Any

import torch
from torch import Tensor

from posbench.errors import unknown
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext, FrequencyScaling
from posbench.position.scheme import PositionScheme

EXPONENTS = ("bloc97", "su")


@register("extension/ntk")
class NTK(FrequencyScaling):
    """theta_m becomes theta_m * k^(-m / (M - 1)) over M frequencies (bloc97), or theta_m * k^(-m / M) (su)."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        exponent: str = "bloc97",
    ) -> None:
        super().__init__(inner, context)
        if exponent not in EXPONENTS:
            raise unknown("exponent of ntk", exponent, EXPONENTS)
        self.exponent = exponent
        self.k = context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        count = len(inv_freq_M)
        # A base b * c turns b^(-m/M) into b^(-m/M) * c^(-m/M): no need to know b.
        slowest = count - 1 if self.exponent == "bloc97" else count
        return inv_freq_M * self.k ** (-torch.arange(count, device=inv_freq_M.device).double() / slowest)
