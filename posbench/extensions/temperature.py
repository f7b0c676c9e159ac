"""Temperature of Llama 4 and Ministral 3: logits grow with the logarithm of the position, in steps.

Meta AI. The Llama 4 herd. 2025. https://ai.meta.com/blog/llama-4-multimodal-intelligence/. As in transformers'
ministral3, which scales the queries of all layers (`llama_4_scaling_beta`), with positions from 0.
Deviations: additive terms are not scaled. Llama 4 itself scales the layers without positions only and counts positions
from 1; `irope` has that form.
"""

from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/temperature")
class Temperature(Extension):
    """q_i . k_j is multiplied by 1 + beta ln(1 + floor(i / L)), i from 0; L is `floor_scale`."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        beta: float = 0.1,
        floor_scale: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        if not 0 <= beta < float("inf"):
            raise ConfigError(
                f"beta {beta} of temperature: give a finite number of at least 0 (0.1 in the models, 0 is off)"
            )
        self.beta = beta
        self.floor_scale = context.tokens("floor_scale", floor_scale, context.shape.train_len)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"beta": 0.0}

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        steps_T = (inputs.geo.q_index_T // self.floor_scale).double()
        return self.scale_inner(1 + self.beta * steps_T.log1p(), inputs)
