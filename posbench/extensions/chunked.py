"""Independent chunks: a long text read as many short ones, each from position 0.

The usual way to fit a text into a model of a fixed length, and the baseline of BERT-era readers: Beltagy, Peters,
Cohan. Longformer. 2020, section 1. arXiv:2004.05150. Chunks do not overlap, so a chunk's first tokens know
nothing of the text before them.
"""

from typing import Any

from posbench.position.extension import Context, Extension
from posbench.position.geometry import Geometry, Mask
from posbench.position.masks import Chunk, both
from posbench.position.scheme import PositionScheme, Site


class Chunked(Extension):
    """Visible where i // c == j // c; position p becomes p % c. c is `chunk`, by default the training length."""

    def __init__(self, inner: PositionScheme, context: Context, chunk: int | None = None) -> None:
        super().__init__(inner, context)
        self.chunk = context.tokens("chunk", chunk, context.shape.train_len)

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"chunk": length}

    def check(self, length: int) -> None:
        # Where only distances count, positions go on, and with them what the scheme says of their range.
        self.inner.check(length if self.inner.traits.relative else min(length, self.chunk))

    def place(self, geo: Geometry) -> Geometry:
        # Distances within a chunk are the same without the reset, and a shorter table serves them.
        if self.inner.traits.relative or geo.read <= self.chunk:
            return self.inner.place(geo)
        return self.inner.place(geo.memo((self, "place"), lambda: self.reset(geo)))

    def reset(self, geo: Geometry) -> Geometry:
        """Each token at its place in its chunk."""
        return geo.at(geo.q_index_T % self.chunk, geo.k_index_S % self.chunk)

    def mask(self, site: Site) -> Mask | None:
        inner = self.inner.mask(site)
        if site.geo.read <= self.chunk:
            return inner
        return both(inner, Chunk(self.chunk))
