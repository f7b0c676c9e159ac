"""Independent chunks: a long text read as many short ones, each from position 0.

The usual way to fit a text into a model of a fixed length, and the baseline of BERT-era readers: Beltagy, Peters,
Cohan. Longformer. 2020, section 1. arXiv:2004.05150. Chunks do not overlap, so a chunk's first tokens know
nothing of the text before them.
"""

from typing import Any

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Mask
from posbench.position.masks import SameChunk, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/chunked")
class Chunked(Extension):
    """Visible where i // c == j // c; position p becomes p % c. c is `chunk_size`, by default the training length."""

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, chunk_size: int | None = None
    ) -> None:
        super().__init__(inner, context)
        self.chunk_size = context.tokens("chunk_size", chunk_size, context.shape.train_len)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"chunk_size": length}

    def check(self, length: int) -> None:
        # Where only distances count, positions go on, and with them what the scheme says of their range.
        self.inner.check(length if self.inner.traits.relative else min(length, self.chunk_size))

    def assign_positions(self, geo: Geometry) -> Geometry:
        # Distances within a chunk are the same without the reset, and a shorter table serves them.
        if self.inner.traits.relative or geo.n_read <= self.chunk_size:
            return self.inner.assign_positions(geo)
        return self.inner.assign_positions(geo.memo((self, "assign_positions"), lambda: self.reset(geo)))

    def reset(self, geo: Geometry) -> Geometry:
        """Each token at its place in its chunk."""
        return geo.with_positions(geo.q_index_T % self.chunk_size, geo.k_index_S % self.chunk_size)

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        inner = self.inner.mask(inputs)
        if inputs.geo.n_read <= self.chunk_size:
            return inner
        return and_masks(inner, SameChunk(self.chunk_size))
