"""Dual chunk attention: true distances within chunks, bounded distances between them.

An et al. Training-Free Long-Context Scaling of Large Language Models. ICML 2024, sections 3.1 to 3.3.
arXiv:2402.17463. The paper's positions with c = s + w: by default s is 3/4 of the training length and c is all
of it.
Deviations: for any scheme that depends on distances only, not just rotations. The authors'
github.com/HKUNLP/ChunkLlama clamps positions at c where the paper clamps them at c - 1; a `local_window` larger by 1
gives the code's positions. Its defaults are s = 5/8 and w = 1/8 of the training length L, and past L tokens, N in all, it
multiplies q . k by (0.05 ln(N / L) + 1)^2, which the paper's results are without.
"""

from typing import Any

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import EarlierChunks, SameChunk
from posbench.position.region_extension import RegionExtension
from posbench.position.scheme import PositionScheme


@register("extension/dual_chunk")
class DualChunk(RegionExtension):
    """Distances i - j in a chunk, min(s + i % s, c - 1) - j % s to the chunk before, c - 1 - j % s to earlier ones.

    s is `chunk_size`, w is `local_window`, c = s + w.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        chunk_size: int | None = None,
        local_window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        train_len = context.shape.train_len
        self.chunk_size = context.tokens("chunk_size", chunk_size, max(1, 3 * train_len // 4))
        self.local_window = context.tokens("local_window", local_window, max(1, train_len - self.chunk_size))

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"chunk_size": length}

    def all_near(self, geo: Geometry) -> bool:
        return geo.n_read <= self.chunk_size

    def near_mask(self) -> Mask:
        return SameChunk(self.chunk_size)

    def far_regions(self, geo: Geometry) -> list[Region]:
        regions = [Region(self.between_chunks(geo, successive=True), SameChunk(self.chunk_size, before=1))]
        if geo.n_read > 2 * self.chunk_size:
            earlier = self.between_chunks(geo, successive=False)
            regions.append(Region(earlier, EarlierChunks(self.chunk_size, before=1)))
        return regions

    def between_chunks(self, geo: Geometry, successive: bool) -> Geometry:
        """Keys at their index in their chunk; queries at c - 1, or at min(s + i % s, c - 1) for the chunk before."""
        last = self.chunk_size + self.local_window - 1
        q_pos_T = (self.chunk_size + geo.q_index_T % self.chunk_size).clamp(max=last)
        return geo.with_positions(
            q_pos_T if successive else q_pos_T * 0 + last, geo.k_index_S % self.chunk_size
        )
