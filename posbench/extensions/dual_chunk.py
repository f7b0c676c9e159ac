"""Dual chunk attention: true distances within a chunk, and near its border; a far key only by its place in its chunk.

An et al. Training-Free Long-Context Scaling of Large Language Models. ICML 2024, sections 3.1 to 3.3.
arXiv:2402.17463. The paper's positions with c = s + w: by default s is 3/4 of the training length and c is all
of it. The authors' github.com/HKUNLP/ChunkLlama stops at c where the paper stops at c - 1 (local_window + 1 here).
For any scheme that feels distances only, not just rotations.
"""

from typing import Any

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Region
from posbench.position.masks import EarlierChunks, SameChunk, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/dual_chunk")
class DualChunk(Extension):
    """i - j in a chunk of s; min(s + i % s, c - 1) - j % s to the chunk before, c - 1 - j % s to earlier ones, c = s + w."""

    requires = frozenset({"positions", "unbounded context"})
    requires_relative = True
    splits_regions = True

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        chunk_size: int | None = None,
        local_window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        trained = context.shape.train_len
        self.chunk_size = context.tokens("chunk_size", chunk_size, max(1, 3 * trained // 4))
        self.local_window = context.tokens("local_window", local_window, max(1, trained - self.chunk_size))

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"chunk_size": length}

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        regions, geo, s = self.inner.regions(inputs), inputs.geo, self.chunk_size
        if geo.n_read <= s:
            return regions
        # Within a chunk the positions of both sides are moved alike, which no distance shows.
        split = [Region(one.geo, and_masks(one.mask, SameChunk(s))) for one in regions]
        before = geo.memo((self, "before"), lambda: self.moved(geo, successive=True))
        split.append(Region(before, SameChunk(s, before=1)))
        if geo.n_read > 2 * s:
            earlier = geo.memo((self, "earlier"), lambda: self.moved(geo, successive=False))
            split.append(Region(earlier, EarlierChunks(s, before=1)))
        return split

    def moved(self, geo: Geometry, successive: bool) -> Geometry:
        """Keys at their place in their chunk; queries at the last position, or on the way to it."""
        last = self.chunk_size + self.local_window - 1
        q_pos_T = (self.chunk_size + geo.q_index_T % self.chunk_size).clamp(max=last)
        return geo.with_positions(
            q_pos_T if successive else q_pos_T * 0 + last, geo.k_index_S % self.chunk_size
        )
