"""KERPLE, power: a trained penalty that grows with a trained power of the distance.

Chi et al. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. NeurIPS 2022,
section 4. arXiv:2205.09921. With exponent 1 it is ALiBi with trained slopes. How parameters are kept in their
ranges: posbench/position/kerple.py.
"""

from torch import Tensor

from posbench.instantiate import register
from posbench.position.kerple import Kerple, within


@register("scheme/kerple_power")
class KerplePower(Kerple):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - a_h * (i - j)^p_h, with a >= 0.01 and 0.01 <= p <= 2."""

    def penalty(self, distance: Tensor) -> Tensor:
        heads = (-1,) + (1,) * distance.dim()
        power = distance.double() ** within(self.p_H, 2.0).view(heads)
        return -within(self.a_H).view(heads) * power
