"""Hybrids by layer: every n-th layer is global and without positions."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.compose import Layered
from posbench.position.geometry import Mask
from posbench.position.masks import and_masks
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme


class LayerHybrid(Layered):
    """Layers n, 2n, ... (counted from 1) are global and without positions (NoPE); the others are local and use `base_scheme`.

    A model of fewer than n layers has one global layer, its last. A subclass may hide keys from local layers
    (`local_mask`) and scale the logits of global layers (`global_logit_scale`).
    """

    def __init__(
        self, shape: ModelShape, base_scheme: Mapping[str, Any], no_rope_layer_interval: int
    ) -> None:
        layers = every_nth(shape.n_layers, no_rope_layer_interval)
        super().__init__(shape, [base_scheme, PositionScheme()], layers)

    def local_mask(self, inputs: AttentionInputs) -> Mask | None:
        """Returns the mask of a local layer, combined with that of `base_scheme`; None hides nothing."""
        return None

    def global_logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        """Returns the factor on q . k in a global layer, broadcastable to (B, H, T); None is 1."""
        return None

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        own = None if self.is_global(inputs.layer) else self.local_mask(inputs)
        return and_masks(super().mask(inputs), own)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        if self.is_global(inputs.layer):
            return self.global_logit_scale(inputs)
        return super().logit_scale(inputs)

    def is_global(self, layer: int) -> bool:
        """Returns whether the layer is one of those without positions."""
        return self.layers[layer] == 1


def every_nth(n_layers: int, n: int, setting: str = "no_rope_layer_interval") -> list[int]:
    """Returns 1 for every n-th layer and 0 for the others; the last layer alone is 1 where there are fewer than n."""
    if n < 2 or n_layers < 2:
        raise ConfigError(
            f"{setting} {n} of {n_layers} layers: give at least 2, in a model of at least 2 layers"
        )
    step = min(n, n_layers)
    return [int((layer + 1) % step == 0) for layer in range(n_layers)]
