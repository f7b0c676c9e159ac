"""ReRoPE: true distances within a window, and one constant distance beyond it.

Su. Transformer Upgrade Path 12: ReRoPE for Unlimited Extrapolation? 2023 (in Chinese).
https://kexue.fm/archives/9708, the form with 1/k = 0.
Deviations: for any scheme that depends on distances only, not just rotations; the article's log n factor is the
extension log_n.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.region_extension import RegionExtension
from posbench.position.scheme import PositionScheme


@register("extension/rerope")
class ReRoPE(RegionExtension):
    """The distance n = i - j becomes min(n, w); w is `window`, by default half of the training length."""

    def __init__(self, inner: PositionScheme, context: ExtensionContext, window: int | None = None) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, context.shape.train_len // 2)

    def far_positions(self, geo: Geometry) -> tuple[Tensor, Tensor]:
        return torch.full_like(geo.q_pos_T, self.window), torch.zeros_like(geo.k_pos_S)
