"""HWFA: windows in every layer but the last, which sees everything, feels no position and is scaled by log n.

Su, 2023: https://kexue.fm/archives/9603 and https://kexue.fm/archives/9731.
The windows turn (RoPE). The window w by default reaches three quarters of the training length through the
layers, (w - 1)(layers - 1) + 1 <= 3L/4, the most that 9603 advises; log n is to the base of L.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.compose import Layered, every_nth, sliding_window, tokens_within_train_len
from posbench.position.geometry import Mask
from posbench.position.masks import and_masks
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme


@register("scheme/hwfa")
class HWFA(Layered):
    """Last layer: log_L(i + 1) q_i . k_j / sqrt(D); before it: another scheme where i - j < window."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any], window: int | None = None) -> None:
        super().__init__(
            shape, [base_scheme, PositionScheme()], every_nth(shape.n_layers, max(2, shape.n_layers))
        )
        reach = 3 * shape.train_len // 4
        default = max(1, (reach - 1) // (shape.n_layers - 1) + 1)
        self.window = tokens_within_train_len(shape, "hwfa window", window, default)
        self.train_len = shape.train_len

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        own = None if self.is_last(inputs) else sliding_window(self.window, inputs)
        return and_masks(super().mask(inputs), own)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        if not self.is_last(inputs):
            return super().logit_scale(inputs)
        keys_T = inputs.geo.q_index_T.double() + 1
        return keys_T.log() / keys_T.new_tensor(max(2, self.train_len)).log()

    def is_last(self, inputs: AttentionInputs) -> bool:
        """Whether the layer sees everything."""
        return self.layers[inputs.layer] == 1
