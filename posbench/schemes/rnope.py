"""RNoPE: layers that turn and layers that do not, in turns: near things by position, far things by content.

Yang et al. RoPE to NoPE and Back Again: A New Hybrid Attention Strategy. 2025. arXiv:2501.18795.
Its RNoPE, which alternates; the variant with windows in the turning layers is a scheme of its own. The
paper's own bases of the rotation are larger.
"""

from collections.abc import Mapping
from typing import Any

from posbench.instantiate import register
from posbench.position.compose import Layered, every_nth
from posbench.position.scheme import ModelShape, PositionScheme


@register("scheme/rnope")
class RNoPE(Layered):
    """Layers n, 2n, ... of `no_rope_layer_interval` n have q_i . k_j / sqrt(D); the others are those of another scheme."""

    def __init__(
        self, shape: ModelShape, base_scheme: Mapping[str, Any], no_rope_layer_interval: int = 2
    ) -> None:
        super().__init__(
            shape, [base_scheme, PositionScheme()], every_nth(shape.n_layers, no_rope_layer_interval)
        )
