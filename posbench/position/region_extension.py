"""The base of extensions that change distances beyond a window: near and far regions, merged exactly."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from posbench.position.extension import Extension
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import BeyondWindow, PrefixMask, SlidingWindow, and_masks
from posbench.position.scheme import AttentionInputs


class RegionExtension(Extension):
    """Pairs in the near region keep their distance, all other pairs get one from `far_positions`.

    A subclass sets `window` and overrides `far_positions`: the near region is then i - j < window. A subclass with
    regions of another form overrides `all_near`, `near_mask` and `far_regions` in its place.

    Attributes:
        window: width of the near region in tokens, the query's own included.
    """

    requires = frozenset({"positions"})
    requires_relative = True
    splits_regions = True
    window: int

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"window": length}

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        regions, geo = self.inner.regions(inputs), inputs.geo
        if self.all_near(geo):
            return regions
        near = [Region(region.geo, and_masks(region.mask, self.near_mask())) for region in regions]
        return [*near, *geo.memo((self, "far"), lambda: self.far_regions(geo))]

    def all_near(self, geo: Geometry) -> bool:
        """Whether every pair keeps its distance, so that the regions of the inner scheme suffice."""
        return geo.key_span <= self.window

    def near_mask(self) -> Mask:
        """Mask of the pairs that keep their distance."""
        return SlidingWindow(self.window)

    def far_regions(self, geo: Geometry) -> list[Region]:
        """Regions of all other pairs, each with its own positions."""
        return [Region(geo.with_positions(*self.far_positions(geo)), BeyondWindow(self.window))]

    def far_positions(self, geo: Geometry) -> tuple[Tensor, Tensor]:
        """Positions (T,) of the queries and (S,) of the keys in the pairs beyond the window."""
        raise NotImplementedError


class SinkExtension(RegionExtension):
    """A sliding window and the first tokens: visible where i - j < window or j < num_sink_tokens.

    Around a scheme without positions it is a mask. A sink has a position as near as the window's first token, which
    needs positions that count tokens.

    Attributes:
        num_sink_tokens: first tokens that stay visible beyond the window.
        unchanged_len: number of tokens up to which the extension changes nothing.
    """

    requires = frozenset({"indices as positions"})
    num_sink_tokens: int
    unchanged_len: int

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        inner = self.inner.mask(inputs)
        if inputs.geo.n_read <= self.unchanged_len:
            return inner
        return and_masks(inner, SlidingWindow(self.window) | PrefixMask(self.num_sink_tokens))

    def all_near(self, geo: Geometry) -> bool:
        return self.num_sink_tokens == 0 or geo.n_read <= self.unchanged_len
