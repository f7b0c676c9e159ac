"""Dual chunk attention: true distances within a chunk, and near its border; a far key only by its place in its chunk.

An et al. Training-Free Long-Context Scaling of Large Language Models. ICML 2024, sections 3.1 to 3.3.
arXiv:2402.17463. The paper's positions with c = s + w: by default s is 3/4 of the training length and c is all
of it. The authors' github.com/HKUNLP/ChunkLlama stops at c where the paper stops at c - 1 (window + 1 here).
For any scheme that feels distances only, not just rotations.
"""

from typing import Any

from posbench.position.extension import Context, Extension
from posbench.position.geometry import Geometry, Region
from posbench.position.masks import Chunk, EarlierChunks, both
from posbench.position.scheme import PositionScheme, Site


class DualChunk(Extension):
    """i - j in a chunk of s; min(s + i % s, c - 1) - j % s to the chunk before, c - 1 - j % s to earlier ones, c = s + w."""

    requires = frozenset({"positions", "far keys"})
    requires_relative = True
    splits_regions = True

    def __init__(
        self,
        inner: PositionScheme,
        context: Context,
        chunk: int | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        trained = context.shape.train_len
        self.chunk = context.tokens("chunk", chunk, max(1, 3 * trained // 4))
        self.window = context.tokens("window", window, max(1, trained - self.chunk))

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"chunk": length}

    def regions(self, site: Site) -> list[Region]:
        regions, geo, s = self.inner.regions(site), site.geo, self.chunk
        if geo.read <= s:
            return regions
        # Within a chunk the positions of both sides are moved alike, which no distance shows.
        split = [Region(one.geo, both(one.mask, Chunk(s))) for one in regions]
        before = geo.memo((self, "before"), lambda: self.moved(geo, successive=True))
        split.append(Region(before, Chunk(s, before=1)))
        if geo.read > 2 * s:
            earlier = geo.memo((self, "earlier"), lambda: self.moved(geo, successive=False))
            split.append(Region(earlier, EarlierChunks(s, before=1)))
        return split

    def moved(self, geo: Geometry, successive: bool) -> Geometry:
        """Keys at their place in their chunk; queries at the last position, or on the way to it."""
        last = self.chunk + self.window - 1
        q_pos_T = (self.chunk + geo.q_index_T % self.chunk).clamp(max=last)
        return geo.at(q_pos_T if successive else q_pos_T * 0 + last, geo.k_index_S % self.chunk)
