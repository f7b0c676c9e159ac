"""DroPE: the positions of a trained model dropped, after which a short training at its own length mends it.

Gelberg et al. Extending the Context of Pretrained LLMs by Dropping Their Positional Embeddings. 2025, section 4.
arXiv:2512.12167. The training is the `finetune` of an experiment; without it the model is as good as broken,
which is worth measuring once.
For any scheme that feels distances only, all of which become 0, where the paper drops rotations; without the norm
of queries and keys that its code, github.com/SakanaAI/DroPE, offers.
"""

from typing import Any

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme


@register("extension/drope")
class DroPE(Extension):
    """Every position p becomes position_scale * p, by default 0: all tokens in one place, told apart by the causal mask alone."""

    requires = frozenset({"positions"})
    requires_relative = True

    def __init__(self, inner: PositionScheme, context: ExtensionContext, position_scale: float = 0.0) -> None:
        super().__init__(inner, context)
        if not 0 <= position_scale <= 1:
            raise ConfigError(
                f"position_scale {position_scale} of drope: give a share from 0 (drop) to 1 (nothing changes)"
            )
        self.position_scale = position_scale

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"position_scale": 1.0}

    def check(self, length: int) -> None:
        self.inner.check(length if self.position_scale else 1)

    def assign_positions(self, geo: Geometry) -> Geometry:
        if self.position_scale == 1:
            return self.inner.assign_positions(geo)
        return geo.memo((self, "assign_positions"), lambda: self.drop(geo))

    def drop(self, geo: Geometry) -> Geometry:
        """Positions times `position_scale`; whole where they are 0, for tables that have no rows between."""
        placed = self.inner.assign_positions(geo)
        if self.position_scale == 0:
            return placed.with_positions(geo.q_index_T * 0, geo.k_index_S * 0)
        return placed.with_positions(
            placed.q_pos_T.double() * self.position_scale, placed.k_pos_S.double() * self.position_scale
        )
