"""Dynamic NTK: rope_theta grows with the length of the sequence.

emozilla. Dynamically Scaled RoPE further increases performance of long context LLaMA with zero fine-tuning. 2023.
https://www.reddit.com/r/LocalLLaMA/comments/14mrgpr. As transformers' rope type `dynamic`.
At N = k L, factor 1 is NTK-aware scaling by k, and factor k is scaling by k^2 - k + 1.
Deviations: N is the declared length of the whole sequence and all of its tokens are rotated with one rope_theta. An
incremental decoder keeps keys as they were rotated when cached, an error that is not copied.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling, NTKScaling
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme


@register("extension/dynamic_ntk")
class DynamicNTK(FrequencyScaling):
    """rope_theta becomes rope_theta * k^(D / (D - 2)), k = f max(N, L) / L - (f - 1), at a length of N tokens.

    f is `factor`, L is `original_max_position_embeddings`, by default the training length.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        factor: float = 1.0,
        original_max_position_embeddings: int | None = None,
    ) -> None:
        super().__init__(inner, context, factor)
        self.original_len = context.tokens(
            "original_max_position_embeddings", original_max_position_embeddings, context.shape.train_len
        )
        self.traits = replace(self.traits, prefix_stable=False)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"original_max_position_embeddings": length}

    def inv_freq_transform(self, geo: Geometry) -> Callable[[Tensor], Tensor]:
        return NTKScaling(
            self.factor * max(geo.length, self.original_len) / self.original_len - (self.factor - 1)
        )
