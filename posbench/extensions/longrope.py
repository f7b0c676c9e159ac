"""LongRoPE: a factor of its own for each frequency, found by search, and a lower temperature.

Ding et al. LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens. 2024, section 3. arXiv:2402.13753.
As transformers' rope type `longrope` and Phi-3: no first tokens are left uninterpolated. The search is not
here, the factors are given; without any they are those of NTK-aware scaling, a point from which it starts.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext, FrequencyScaling
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/longrope")
class LongRoPE(FrequencyScaling):
    """theta_m becomes theta_m / factor_m, `short_factor` up to the training length L and `long_factor` past it; q . k times 1 + ln k / ln L."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float | str = "auto",
        long_factor: list | None = None,
        short_factor: list | None = None,
    ) -> None:
        super().__init__(inner, context)
        shape = context.shape
        self.k = context.factor(factor)
        self.qk_scale = 1 + math.log(self.k) / math.log(max(2, shape.train_len))
        counts = rotated(inner, context)
        for name, given in (("long_factor", long_factor), ("short_factor", short_factor)):
            if given is not None and not (admitted(given) and {len(given)} == counts):
                raise ConfigError(
                    f"{name} {given} of longrope: give {' or '.join(map(str, counts))} finite numbers above 0, "
                    "one for each frequency from the fastest, or null"
                )
        self.given = long_factor if context.length > shape.train_len else short_factor or [1.0]
        self.depends_on_length("auto")

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        if self.given is not None:
            return inv_freq_M / inv_freq_M.new_tensor(self.given)
        step_M = torch.arange(len(inv_freq_M), device=inv_freq_M.device).double()
        return inv_freq_M * self.k ** (-step_M / (len(inv_freq_M) - 1))

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.scale_inner(self.qk_scale, inputs)


def admitted(given: object) -> bool:
    """Whether it is a list of numbers that can divide."""
    return isinstance(given, list) and all(isinstance(f, int | float) and 0 < f < math.inf for f in given)


def rotated(inner: PositionScheme, context: ExtensionContext) -> set[int]:
    """How many frequencies the layers turn by: asked of the scheme, for not all of a head need turn."""
    like = next(inner.parameters(), torch.empty(0))
    stream = like.new_zeros(1, 1, context.shape.d_model)
    head = like.new_zeros(1, context.shape.n_heads, 1, context.shape.head_dim)
    found: set[int] = set()

    def note(inv_freq_M: Tensor) -> Tensor:
        found.add(len(inv_freq_M))
        return inv_freq_M

    geo = Geometry.from_range(0, 1, device=like.device)
    for layer in range(context.shape.n_layers):
        inner.qk(AttentionInputs(layer, geo, stream, stream, head, head, (note,)))
    return found
