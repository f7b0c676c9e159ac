"""Leaky ReRoPE: distances as trained within a window, and beyond it shorter steps.

Su, 2023: https://kexue.fm/archives/9708 (Rectified Rotary Position Embeddings, the form with 1/k).
For any scheme that feels distances only, not just rotations; without the log n factor, which is an extension
of its own. The article gives k by hand; by default it is the least with which no distance is new.
"""

from typing import Any

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Region
from posbench.position.masks import BeyondWindow, SlidingWindow, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/leaky_rerope")
class LeakyReRoPE(Extension):
    """The distance n = i - j >= w becomes w + (n - w) / k; w is `window`, by default half of the training length."""

    requires = frozenset({"positions", "unbounded context"})
    requires_relative = True
    splits_regions = True

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        window: int | None = None,
        factor: float | str = "auto",
    ) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, max(1, context.shape.train_len // 2))
        self.k = self.least(context) if factor == "auto" else context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def least(self, context: ExtensionContext) -> float:
        """The least k with which the longest distance is at most that of the training length."""
        reach, farthest = context.shape.train_len - 1 - self.window, context.length - 1 - self.window
        if farthest <= max(0, reach):
            return 1.0
        if reach < 1:
            raise ConfigError(
                f"leaky_rerope window {self.window}: it leaves nothing of {context.shape.train_len} trained tokens to "
                f"squeeze distances into; give at most {context.shape.train_len - 2}, or a factor"
            )
        return farthest / reach

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        regions = self.inner.regions(inputs)
        if inputs.geo.key_span <= self.window:
            return regions
        near = [Region(region.geo, and_masks(region.mask, SlidingWindow(self.window))) for region in regions]
        far = inputs.geo.memo((self, "far"), lambda: self.far(inputs.geo))
        return [*near, Region(far, BeyondWindow(self.window))]

    def far(self, geo: Geometry) -> Geometry:
        """Positions divided by k, the queries moved on so that the two parts meet at w."""
        moved = self.window * (self.k - 1)
        return geo.with_positions((geo.q_index_T.double() + moved) / self.k, geo.k_index_S.double() / self.k)
