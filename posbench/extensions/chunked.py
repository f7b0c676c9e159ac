"""Independent chunks: a long text is read as many short ones, each from position 0.

Beltagy, Peters, Cohan. Longformer: The Long-Document Transformer. 2020, sections 1 and 2. arXiv:2004.05150, which
describes it as a workaround for models of fixed length.
Deviations: no model combines the chunks. They do not overlap, so the first tokens of a chunk have no context.
"""

from dataclasses import replace
from typing import Any

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Mask
from posbench.position.masks import SameChunk, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/chunked")
class Chunked(Extension):
    """Visible where i // c == j // c; position p becomes p % c. c is `chunk_size`, by default the training length.

    The mask and positions are those of a chunk. Indices and earlier tokens stay those of the whole text, for schemes that use
    them in other ways: to scale logits by the number of visible tokens (such as ssmax), for global tokens or blocks (such as
    longformer), or for sums over the tokens in between (such as path).
    """

    requires = frozenset({"indices as positions"})
    version = 2

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, chunk_size: int | None = None
    ) -> None:
        super().__init__(inner, context)
        self.chunk_size = context.tokens("chunk_size", chunk_size, context.shape.train_len)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"chunk_size": length}

    def check(self, length: int) -> None:
        # Positions of a relative scheme are not reset, so its own limit on the length applies.
        self.inner.check(length if self.inner.traits.relative else min(length, self.chunk_size))

    def assign_positions(self, geo: Geometry) -> Geometry:
        # Distances within a chunk are the same without a reset, and a table of distances stays short.
        if self.inner.traits.relative or geo.n_read <= self.chunk_size:
            return self.inner.assign_positions(geo)
        return self.inner.assign_positions(geo.memo((self, "assign_positions"), lambda: self.reset(geo)))

    def reset(self, geo: Geometry) -> Geometry:
        """The geometry of chunks: each token's position is counted from the start of its chunk, which has a chunk's length."""
        placed = geo.with_positions(geo.q_index_T % self.chunk_size, geo.k_index_S % self.chunk_size)
        return replace(placed, length=self.chunk_size)

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        inner = self.inner.mask(inputs)
        if inputs.geo.n_read <= self.chunk_size:
            return inner
        return and_masks(inner, SameChunk(self.chunk_size))
