"""ReRoPE: distances as trained within a window, and the same distance for everything beyond it.

Su, 2023: https://kexue.fm/archives/9708 (Rectified Rotary Position Embeddings, the form with 1/k = 0).
For any scheme that feels distances only, not just rotations; without the log n factor, which is an extension
of its own.
"""

from typing import Any

import torch

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Region
from posbench.position.masks import BeyondWindow, SlidingWindow, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/rerope")
class ReRoPE(Extension):
    """The distance n = i - j becomes min(n, w); w is `window`, by default half of the training length."""

    requires = frozenset({"positions", "unbounded context"})
    requires_relative = True
    splits_regions = True

    def __init__(self, inner: PositionScheme, context: ExtensionContext, window: int | None = None) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, context.shape.train_len // 2)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"window": length}

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        regions = self.inner.regions(inputs)
        if inputs.geo.key_span <= self.window:
            return regions
        near = [Region(region.geo, and_masks(region.mask, SlidingWindow(self.window))) for region in regions]
        far = inputs.geo.memo((self, "far"), lambda: self.far(inputs.geo))
        return [*near, Region(far, BeyondWindow(self.window))]

    def far(self, geo: Geometry) -> Geometry:
        """Every key w tokens before every query."""
        return geo.with_positions(torch.full_like(geo.q_pos_T, self.window), torch.zeros_like(geo.k_pos_S))
