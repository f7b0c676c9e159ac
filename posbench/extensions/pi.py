"""Position Interpolation: positions are divided by k, into the range of the training length.

Chen et al. Extending Context Window of Large Language Models via Positional Interpolation. 2023, section 2.3.
arXiv:2306.15595. Found at the same time by kaiokendev ("SuperHOT").
Deviations: without the paper's fine-tuning; for any scheme with positions, not just rotations. A scheme of whole
distances defines its own handling of fractions.
"""

import math
from dataclasses import replace

from posbench.instantiate import register
from posbench.position.factor_extension import FactorExtension
from posbench.position.geometry import Geometry


@register("extension/pi")
class PositionInterpolation(FactorExtension):
    """Every position p becomes p / k; k is `factor`."""

    requires = frozenset({"positions"})

    def check(self, length: int) -> None:
        self.inner.check(self.compressed_length(length))

    def assign_positions(self, geo: Geometry) -> Geometry:
        geo = self.inner.assign_positions(geo)
        if self.factor == 1:
            return geo
        return geo.memo((self, "assign_positions"), lambda: self.interpolate(geo))

    def interpolate(self, geo: Geometry) -> Geometry:
        """Returns the geometry with positions divided by k, in float64, and a length to match."""
        moved = geo.with_positions(geo.q_pos_T.double() / self.factor, geo.k_pos_S.double() / self.factor)
        return replace(moved, length=self.compressed_length(geo.length))

    def compressed_length(self, length: int) -> int:
        """Returns the number of whole positions that the compressed ones of `length` tokens span."""
        # The small term absorbs rounding: (length / train_len) * train_len tokens must count as length.
        return math.ceil(length / self.factor - 1e-9)
