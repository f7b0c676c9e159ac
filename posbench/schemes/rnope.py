"""RNoPE: layers with RoPE alternate with layers without positions.

Yang et al. RoPE to NoPE and Back Again: A New Hybrid Attention Strategy. 2025. arXiv:2501.18795.
The paper's RNoPE; its variant with windows in the rotated layers (RNoPE-SWA) is SWAN without scaling. The paper's
rotations have bases of 10^4 to 4 * 10^6.
"""

from collections.abc import Mapping
from typing import Any

from posbench.instantiate import register
from posbench.position.hybrid import LayerHybrid
from posbench.position.scheme import ModelShape


@register("scheme/rnope")
class RNoPE(LayerHybrid):
    """Layers n, 2n, ... of `no_rope_layer_interval` n: q_i . k_j / sqrt(D); the others: `base_scheme`."""

    def __init__(
        self, shape: ModelShape, base_scheme: Mapping[str, Any], no_rope_layer_interval: int = 2
    ) -> None:
        super().__init__(shape, base_scheme, no_rope_layer_interval)
