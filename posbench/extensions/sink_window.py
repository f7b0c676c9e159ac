"""StreamingLLM: a sliding window and the first few tokens, with positions counted inside that cache.

Xiao et al. Efficient Streaming Language Models with Attention Sinks. ICLR 2024, section 3.2. arXiv:2309.17453.
The cache holds the sinks and then the last w tokens, the query among them, and position is the place in it. A
query past s + w tokens thus stands at s + w - 1 for ever; the window's keys keep their true distances and only
the sinks move nearer. A scheme with absolute positions has added them before any cache, so it cannot follow.
By default sinks and window together fill the training length, so that no distance is new to the model.
"""

from typing import Any

from posbench.position.extension import Context, Extension
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import Farther, First, Nearest, both
from posbench.position.scheme import PositionScheme, Site


class SinkWindow(Extension):
    """Visible where n = i - j < w or j < s; the distance is n within the window and min(i, s + w - 1) - j to a sink."""

    requires_relative = True
    splits_regions = True

    def __init__(
        self, inner: PositionScheme, context: Context, sinks: int = 4, window: int | None = None
    ) -> None:
        super().__init__(inner, context)
        self.sinks = context.tokens("sinks", sinks, 4, least=0)
        self.window = context.tokens("window", window, max(1, context.shape.train_len - sinks))

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"window": length}

    def mask(self, site: Site) -> Mask | None:
        inner = self.inner.mask(site)
        if self.holds_all(site.geo):
            return inner
        return both(inner, Nearest(self.window) | First(self.sinks))

    def regions(self, site: Site) -> list[Region]:
        regions = self.inner.regions(site)
        if self.sinks == 0 or self.holds_all(site.geo):
            return regions
        recent = [Region(region.geo, both(region.mask, Nearest(self.window))) for region in regions]
        # Of the pairs beyond the window the mask leaves the sinks alone.
        sinks = site.geo.memo((self, "sinks"), lambda: self.nearer(site.geo))
        return [*recent, Region(sinks, Farther(self.window))]

    def holds_all(self, geo: Geometry) -> bool:
        """Whether nothing has left the cache yet."""
        return geo.read <= self.sinks + self.window

    def nearer(self, geo: Geometry) -> Geometry:
        """Queries at their place in the cache, keys at theirs, which is right for sinks only."""
        return geo.at(geo.q_index_T.clamp(max=self.sinks + self.window - 1), geo.k_index_S)
