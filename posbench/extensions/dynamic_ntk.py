"""Dynamic NTK: a base of the rotation that grows with the length of the sequence at hand.

emozilla, 2023: https://www.reddit.com/r/LocalLLaMA/comments/14mrgpr. As transformers' rope type `dynamic`.
The length N is the declared length of the whole sequence and the whole sequence turns by one base; in an
incremental decoder keys keep the base that they were cached with, which is a fault and is not copied. Factor 1
at N = k L is NTK-aware scaling by k; factor k there is k^2 - k + 1.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posbench.position.extension import Context, SpectrumExtension
from posbench.position.scheme import PositionScheme, Site


@dataclass(frozen=True)
class Stretch:
    """theta_m * k^(-m / (M - 1)); equal ones share the angles that are kept on a geometry."""

    k: float

    def __call__(self, theta_M: Tensor) -> Tensor:
        step_M = torch.arange(len(theta_M), device=theta_M.device).double()
        return theta_M * self.k ** (-step_M / (len(theta_M) - 1))


class DynamicNTK(SpectrumExtension):
    """The base b becomes b * k^(d/(d-2)), k = f max(N, L) / L - (f - 1); f is `factor`, L is `start`."""

    def __init__(
        self, inner: PositionScheme, context: Context, factor: float = 1.0, start: int | None = None
    ) -> None:
        super().__init__(inner, context)
        self.f = context.factor(factor)
        self.start = context.tokens("start", start, context.shape.train_len)
        self.depends_on_length("auto")

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"start": length}

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        k = self.f * max(site.geo.length, self.start) / self.start - (self.f - 1)
        return self.inner.qk(replace(site, spectrum=(*site.spectrum, Stretch(k))))
