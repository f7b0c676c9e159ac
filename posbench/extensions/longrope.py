"""LongRoPE: one searched factor for each frequency, and a lower softmax temperature.

Ding et al. LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens. ICML 2024, section 3. arXiv:2402.13753.
As transformers' rope type `longrope` and in Phi-3. `posbench search` searches the factors (evaluation/evolution.py).
Deviations: without fine-tuning; the default is NTK-aware scaling, a starting point of the search. The first tokens are
interpolated like all others.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling, NTKScaling
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/longrope")
class LongRoPE(FrequencyScaling):
    """theta_m becomes theta_m / f_m, and q . k is multiplied by 1 + ln k / ln L; k is `factor`.

    f is `short_factor` up to the training length L and `long_factor` past it. The length that counts is the larger of
    the evaluated length and the number of tokens read.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        long_factor: list[float] | None = None,
        short_factor: list[float] | None = None,
    ) -> None:
        super().__init__(inner, context, factor)
        train_len = context.shape.train_len
        self.qk_scale = 1 + math.log(self.factor) / math.log(max(2, train_len))
        for name, given in (("long_factor", long_factor), ("short_factor", short_factor)):
            if given is not None and not (are_divisors(given) and {len(given)} == self.counts):
                raise ConfigError(
                    f"{name} {given} of longrope: give {' or '.join(map(str, self.counts))} finite numbers above 0, "
                    "one for each frequency from the fastest, or null"
                )
        self.long_factor, self.short_factor = long_factor, short_factor or [1.0]
        self.traits = replace(self.traits, prefix_stable=False)

    def inv_freq_transform(self, geo: Geometry) -> Callable[[Tensor], Tensor]:
        is_long = max(self.context.length, geo.length) > self.context.shape.train_len
        return self.scale_inv_freq if is_long else self.scale_short

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        """Maps the frequencies, (M,) float64 radians per token, to those past the training length."""
        if self.long_factor is None:
            return NTKScaling(self.factor)(inv_freq_M)
        return inv_freq_M / inv_freq_M.new_tensor(self.long_factor)

    def scale_short(self, inv_freq_M: Tensor) -> Tensor:
        """Maps the frequencies to those up to the training length."""
        return inv_freq_M / inv_freq_M.new_tensor(self.short_factor)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.scale_inner(self.qk_scale, inputs)


def are_divisors(given: object) -> bool:
    """Whether `given` is a list of finite numbers above 0."""
    return isinstance(given, list) and all(isinstance(f, int | float) and 0 < f < math.inf for f in given)
