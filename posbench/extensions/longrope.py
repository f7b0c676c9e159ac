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
from posbench.position.extension import Context, SpectrumExtension
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme, Site


class LongRoPE(SpectrumExtension):
    """theta_m becomes theta_m / factor_m, `short` up to the training length L and `long` past it; q . k times 1 + ln k / ln L."""

    def __init__(
        self,
        inner: PositionScheme,
        context: Context,
        factor: float | str = "auto",
        long: list | None = None,
        short: list | None = None,
    ) -> None:
        super().__init__(inner, context)
        shape = context.shape
        self.k = context.factor(factor)
        self.sharpen = 1 + math.log(self.k) / math.log(max(2, shape.train_len))
        counts = rotated(inner, context)
        for name, given in (("long", long), ("short", short)):
            if given is not None and not (admitted(given) and {len(given)} == counts):
                raise ConfigError(
                    f"{name} {given} of longrope: give {' or '.join(map(str, counts))} finite numbers above 0, "
                    "one for each frequency from the fastest, or null"
                )
        self.given = long if context.length > shape.train_len else short or [1.0]
        self.depends_on_length("auto")

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def spectrum(self, theta_M: Tensor) -> Tensor:
        if self.given is not None:
            return theta_M / theta_M.new_tensor(self.given)
        step_M = torch.arange(len(theta_M), device=theta_M.device).double()
        return theta_M * self.k ** (-step_M / (len(theta_M) - 1))

    def gain(self, site: Site) -> Tensor | None:
        return self.times(self.sharpen, site)


def admitted(given: object) -> bool:
    """Whether it is a list of numbers that can divide."""
    return isinstance(given, list) and all(isinstance(f, int | float) and 0 < f < math.inf for f in given)


def rotated(inner: PositionScheme, context: Context) -> set[int]:
    """How many frequencies the layers turn by: asked of the scheme, for not all of a head need turn."""
    like = next(inner.parameters(), torch.empty(0))
    stream = like.new_zeros(1, 1, context.shape.width)
    head = like.new_zeros(1, context.shape.heads, 1, context.shape.head_dim)
    found: set[int] = set()

    def note(theta_M: Tensor) -> Tensor:
        found.add(len(theta_M))
        return theta_M

    geo = Geometry.span(0, 1, device=like.device)
    for layer in range(context.shape.layers):
        inner.qk(Site(layer, geo, stream, stream, head, head, (note,)))
    return found
