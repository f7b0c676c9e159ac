"""Hybrids of a linear recurrence and attention: every n-th layer is attention.

Kimi Team. Kimi Linear: An Expressive, Efficient Attention Architecture. 2025. arXiv:2510.26692: three KDA
layers for one of attention without positions (`kimi_linear`). Qwen3-Next: three layers of Gated DeltaNet for one of
gated attention, which rotates a quarter of the dimensions (`gated_deltanet_hybrid`). The Mamba-2 paper
(arXiv:2405.21060, section 9.2.3) has attention in a tenth of the layers, `mamba2_hybrid` in a fourth. The last layer
of each n is attention; a model of fewer than n layers has one, its last.
"""

from collections.abc import Mapping
from typing import Any

from posbench.instantiate import register
from posbench.position.compose import Layered
from posbench.position.hybrid import every_nth
from posbench.position.scheme import ModelShape


@register("scheme/recurrent_hybrid")
class RecurrentHybrid(Layered):
    """Layers n, 2n, ... of `attention_layer_interval` n: `attention_scheme`; the others: `base_scheme`."""

    def __init__(
        self,
        shape: ModelShape,
        base_scheme: Mapping[str, Any],
        attention_scheme: Mapping[str, Any],
        attention_layer_interval: int = 4,
    ) -> None:
        layers = every_nth(shape.n_layers, attention_layer_interval, "attention_layer_interval")
        super().__init__(shape, [base_scheme, attention_scheme], layers)
