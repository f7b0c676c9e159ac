"""The temperature of a rotation of a part of each head, as transformers applies it: on the rotated dimensions only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/rotary_scale")
class RotaryScale(Extension):
    """The first `dims` dimensions of queries and keys are multiplied by `scale`, behind the rotation."""

    requires = frozenset({"inv_freq"})

    def __init__(self, inner: PositionScheme, context: ExtensionContext, dims: int, scale: float) -> None:
        super().__init__(inner, context)
        self.scale_D = torch.ones(context.shape.head_dim, dtype=torch.float64)
        self.scale_D[:dims] = scale

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"scale": 1.0}

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        q_BHTD, k_BHSD = self.inner.qk(inputs)
        scale_D = self.scale_D.to(q_BHTD)
        return q_BHTD * scale_D, k_BHSD * scale_D
