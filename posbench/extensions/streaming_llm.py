"""StreamingLLM: a sliding window and the first few tokens, with positions counted inside that cache.

Xiao et al. Efficient Streaming Language Models with Attention Sinks. ICLR 2024, section 3.2. arXiv:2309.17453.
The cache holds the sinks and then the last w tokens, the query among them, and position is the place in it. A
query past s + w tokens thus stands at s + w - 1 for ever; the window's keys keep their true distances and only
the sinks move nearer. A scheme with absolute positions has added them before any cache, so it cannot follow.
By default sinks and window together fill the training length, so that no distance is new to the model.
"""

from typing import Any

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import BeyondWindow, PrefixMask, SlidingWindow, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/streaming_llm")
class StreamingLLM(Extension):
    """Visible where n = i - j < w or j < s; the distance is n within the window and min(i, s + w - 1) - j to a sink."""

    requires_relative = True
    splits_regions = True

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        num_sink_tokens: int = 4,
        window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        self.num_sink_tokens = context.tokens("num_sink_tokens", num_sink_tokens, 4, least=0)
        self.window = context.tokens("window", window, max(1, context.shape.train_len - num_sink_tokens))

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"window": length}

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        inner = self.inner.mask(inputs)
        if self.holds_all(inputs.geo):
            return inner
        return and_masks(inner, SlidingWindow(self.window) | PrefixMask(self.num_sink_tokens))

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        regions = self.inner.regions(inputs)
        if self.num_sink_tokens == 0 or self.holds_all(inputs.geo):
            return regions
        recent = [
            Region(region.geo, and_masks(region.mask, SlidingWindow(self.window))) for region in regions
        ]
        # Of the pairs beyond the window the mask leaves the sinks alone.
        sinks = inputs.geo.memo((self, "sinks"), lambda: self.nearer(inputs.geo))
        return [*recent, Region(sinks, BeyondWindow(self.window))]

    def holds_all(self, geo: Geometry) -> bool:
        """Whether nothing has left the cache yet."""
        return geo.n_read <= self.num_sink_tokens + self.window

    def nearer(self, geo: Geometry) -> Geometry:
        """Queries at their place in the cache, keys at theirs, which is right for sinks only."""
        return geo.with_positions(
            geo.q_index_T.clamp(max=self.num_sink_tokens + self.window - 1), geo.k_index_S
        )
