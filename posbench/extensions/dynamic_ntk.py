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

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext, FrequencyScaling
from posbench.position.scheme import AttentionInputs, PositionScheme


@dataclass(frozen=True)
class Stretch:
    """theta_m * k^(-m / (M - 1)); equal ones share the angles that are kept on a geometry."""

    k: float

    def __call__(self, inv_freq_M: Tensor) -> Tensor:
        step_M = torch.arange(len(inv_freq_M), device=inv_freq_M.device).double()
        return inv_freq_M * self.k ** (-step_M / (len(inv_freq_M) - 1))


@register("extension/dynamic_ntk")
class DynamicNTK(FrequencyScaling):
    """The base b becomes b * k^(d/(d-2)), k = f max(N, L) / L - (f - 1); f is `factor`, L is `original_max_position_embeddings`."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float = 1.0,
        original_max_position_embeddings: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        self.f = context.factor(factor)
        self.original_len = context.tokens(
            "original_max_position_embeddings", original_max_position_embeddings, context.shape.train_len
        )
        self.depends_on_length("auto")

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"original_max_position_embeddings": length}

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        k = self.f * max(inputs.geo.length, self.original_len) / self.original_len - (self.f - 1)
        return self.inner.qk(replace(inputs, inv_freq_transforms=(*inputs.inv_freq_transforms, Stretch(k))))
