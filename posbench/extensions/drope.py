"""DroPE: positions of a trained model are dropped, and a short fine-tuning adapts the model.

Gelberg et al. Extending the Context of Pretrained LLMs by Dropping Their Positional Embeddings. 2025, section 5.
arXiv:2512.12167. The fine-tuning, at the training length, is the `finetune` of an experiment; without it the model is
close to unusable.
Deviations: for any scheme that depends on distances only, all of which become 0, where the paper drops rotations;
without the norm of queries and keys that the paper adds for long fine-tunings (section 5.1), and without its factor on
the logits past the training length, 1 + c ln(N / L) with a tuned c of 0.412 or 0.103 (appendix C.2).
"""

from typing import Any

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme


@register("extension/drope")
class DroPE(Extension):
    """Every position p becomes position_scale * p, by default 0, which leaves order to the causal mask."""

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
        return geo.memo((self, "assign_positions"), lambda: self.scale(geo))

    def scale(self, geo: Geometry) -> Geometry:
        """The geometry with scaled positions: float64, or integers where all are 0, as tables of positions need."""
        placed = self.inner.assign_positions(geo)
        if self.position_scale == 0:
            return placed.with_positions(geo.q_index_T * 0, geo.k_index_S * 0)
        return placed.with_positions(
            placed.q_pos_T.double() * self.position_scale, placed.k_pos_S.double() * self.position_scale
        )
