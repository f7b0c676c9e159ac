"""LM-Infinite: a sliding window and the first few tokens, and a ceiling on the distance.

Han et al. LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models. NAACL 2024,
section 4. arXiv:2308.16137. Window and ceiling are both the training length, as in the paper.
Not the optional attention of some layers to the k middle tokens with the largest logits. Beside StreamingLLM,
positions are not counted in the cache: a first token stays at the ceiling for ever.
"""

from typing import Any

import torch

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import BeyondWindow, PrefixMask, SlidingWindow, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/lm_infinite")
class LMInfinite(Extension):
    """Visible where n = i - j < w or j < s; the distance is min(n, w)."""

    requires = frozenset({"unbounded context"})
    requires_relative = True
    splits_regions = True

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        num_sink_tokens: int = 10,
        window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        self.num_sink_tokens = context.tokens("num_sink_tokens", num_sink_tokens, 10, least=0)
        self.window = context.tokens("window", window, context.shape.train_len)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"window": length}

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        inner = self.inner.mask(inputs)
        if inputs.geo.n_read <= self.window:
            return inner
        return and_masks(inner, SlidingWindow(self.window) | PrefixMask(self.num_sink_tokens))

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        regions = self.inner.regions(inputs)
        if self.num_sink_tokens == 0 or inputs.geo.n_read <= self.window:
            return regions
        near = [Region(region.geo, and_masks(region.mask, SlidingWindow(self.window))) for region in regions]
        # Of the pairs beyond the window the mask leaves the first tokens alone.
        far = inputs.geo.memo((self, "far"), lambda: self.far(inputs.geo))
        return [*near, Region(far, BeyondWindow(self.window))]

    def far(self, geo: Geometry) -> Geometry:
        """Every key at the ceiling."""
        return geo.with_positions(
            torch.full_like(geo.q_index_T, self.window), torch.zeros_like(geo.k_index_S)
        )
