"""Position Interpolation: all positions squeezed into the range that was trained.

Chen et al. Extending Context Window of Large Language Models via Positional Interpolation. 2023, section 2.3.
arXiv:2306.15595. Found at the same time by kaiokendev ("SuperHOT").
Without the paper's fine-tuning. A scheme that knows whole distances only says what it makes of fractions.
"""

import math
from typing import Any

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme


@register("extension/pi")
class PositionInterpolation(Extension):
    """Every position p becomes p / k."""

    requires = frozenset({"positions"})

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, factor: float | str = "auto"
    ) -> None:
        super().__init__(inner, context)
        self.k = context.factor(factor)
        self.depends_on_length(factor)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def check(self, length: int) -> None:
        # Less a rounding error: L * (length / L) tokens are as many as length.
        self.inner.check(math.ceil(length / self.k - 1e-9))

    def assign_positions(self, geo: Geometry) -> Geometry:
        geo = self.inner.assign_positions(geo)
        return geo if self.k == 1 else geo.memo((self, "assign_positions"), lambda: self.squeeze(geo))

    def squeeze(self, geo: Geometry) -> Geometry:
        """Positions divided by k, in float64."""
        return geo.with_positions(geo.q_pos_T.double() / self.k, geo.k_pos_S.double() / self.k)
