"""LM-Infinite: a sliding window and the first few tokens, and a ceiling on the distance.

Han et al. LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models. NAACL 2024,
section 4. arXiv:2308.16137. Window and ceiling are both the training length, as in the paper.
Not the optional attention of some layers to the k middle tokens with the largest logits. Beside StreamingLLM,
positions are not counted in the cache: a first token stays at the ceiling for ever.
"""

from typing import Any

import torch

from posbench.position.extension import Context, Extension
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import Farther, First, Nearest, both
from posbench.position.scheme import PositionScheme, Site


class LMInfinite(Extension):
    """Visible where n = i - j < w or j < s; the distance is min(n, w)."""

    requires = frozenset({"far keys"})
    requires_relative = True
    splits_regions = True

    def __init__(
        self, inner: PositionScheme, context: Context, sinks: int = 10, window: int | None = None
    ) -> None:
        super().__init__(inner, context)
        self.sinks = context.tokens("sinks", sinks, 10, least=0)
        self.window = context.tokens("window", window, context.shape.train_len)

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"window": length}

    def mask(self, site: Site) -> Mask | None:
        inner = self.inner.mask(site)
        if site.geo.read <= self.window:
            return inner
        return both(inner, Nearest(self.window) | First(self.sinks))

    def regions(self, site: Site) -> list[Region]:
        regions = self.inner.regions(site)
        if self.sinks == 0 or site.geo.read <= self.window:
            return regions
        near = [Region(region.geo, both(region.mask, Nearest(self.window))) for region in regions]
        # Of the pairs beyond the window the mask leaves the first tokens alone.
        far = site.geo.memo((self, "far"), lambda: self.far(site.geo))
        return [*near, Region(far, Farther(self.window))]

    def far(self, geo: Geometry) -> Geometry:
        """Every key at the ceiling."""
        return geo.at(torch.full_like(geo.q_index_T, self.window), torch.zeros_like(geo.k_index_S))
