"""DroPE: the positions of a trained model dropped, after which a short training at its own length mends it.

Gelberg et al. Extending the Context of Pretrained LLMs by Dropping Their Positional Embeddings. 2025, section 4.
arXiv:2512.12167. The training is the `finetune` of an experiment; without it the model is as good as broken,
which is worth measuring once.
For any scheme that feels distances only, all of which become 0, where the paper drops rotations; without the norm
of queries and keys that its code, github.com/SakanaAI/DroPE, offers.
"""

from typing import Any

from posbench.errors import ConfigError
from posbench.position.extension import Context, Extension
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme


class DroPE(Extension):
    """Every position p becomes keep * p, by default 0: all tokens in one place, told apart by the causal mask alone."""

    requires = frozenset({"positions"})
    requires_relative = True

    def __init__(self, inner: PositionScheme, context: Context, keep: float = 0.0) -> None:
        super().__init__(inner, context)
        if not 0 <= keep <= 1:
            raise ConfigError(f"keep {keep} of drop_rope: give a share from 0 (drop) to 1 (nothing changes)")
        self.keep = keep

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"keep": 1.0}

    def check(self, length: int) -> None:
        self.inner.check(length if self.keep else 1)

    def place(self, geo: Geometry) -> Geometry:
        if self.keep == 1:
            return self.inner.place(geo)
        return geo.memo((self, "place"), lambda: self.drop(geo))

    def drop(self, geo: Geometry) -> Geometry:
        """Positions times `keep`; whole where they are 0, for tables that have no rows between."""
        placed = self.inner.place(geo)
        if self.keep == 0:
            return placed.at(geo.q_index_T * 0, geo.k_index_S * 0)
        return placed.at(placed.q_pos_T.double() * self.keep, placed.k_pos_S.double() * self.keep)
