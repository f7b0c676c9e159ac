"""HWFA: windowed layers with RoPE, and a last layer without positions and with log-n scaling.

Su, 2023: https://kexue.fm/archives/9603 and https://kexue.fm/archives/9731.
The default window w is the largest that 9603 advises: its reach through the layers, (w - 1)(layers - 1) + 1, is at
most three quarters of the training length L. The base of the logarithm is L.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.hybrid import LayerHybrid
from posbench.position.local_attention import sliding_window, tokens_within_train_len
from posbench.position.log_n import log_n_scale
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/hwfa")
class HWFA(LayerHybrid):
    """Last layer: log_L(i + 1) q_i . k_j / sqrt(D); the others: `base_scheme` where i - j < window."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any], window: int | None = None) -> None:
        if shape.n_layers < 2:
            raise ConfigError(
                "hwfa of 1 layer: give at least 2 layers (size.n_layers), since the last one has no window"
            )
        super().__init__(shape, base_scheme, no_rope_layer_interval=max(2, shape.n_layers))
        reach = 3 * shape.train_len // 4
        default = max(1, (reach - 1) // (shape.n_layers - 1) + 1)
        self.window = tokens_within_train_len(
            shape, "hwfa window", window, default, "three quarters of it through all layers"
        )
        self.log_base = max(2, shape.train_len)

    def local_mask(self, inputs: AttentionInputs) -> Mask | None:
        return sliding_window(self.window, inputs)

    def global_logit_scale(self, inputs: AttentionInputs) -> Tensor:
        return log_n_scale(inputs, self.log_base)
