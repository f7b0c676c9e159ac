"""KERPLE, power: a trained penalty that grows with a trained power of the distance.

Chi et al. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. NeurIPS 2022,
section 4. arXiv:2205.09921. With exponent 1 it is ALiBi with trained slopes. As in the authors' code, the penalty is
added after the division by sqrt(D); equation 1 divides both. Parameters and their ranges: posbench/position/kerple.py.
"""

from torch import Tensor

from posbench.instantiate import register
from posbench.position.kerple import MIN_PARAMETER, Kerple
from posbench.position.straight_through import straight_through_clamp


@register("scheme/kerple_power")
class KerplePower(Kerple):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - a_h * (i - j)^p_h, with a >= 0.01 and 0.01 <= p <= 2."""

    def penalty(self, distance: Tensor) -> Tensor:
        heads = (-1,) + (1,) * distance.dim()
        a_H, p_H = (
            straight_through_clamp(self.a_H, MIN_PARAMETER),
            straight_through_clamp(self.p_H, MIN_PARAMETER, 2.0),
        )
        return -a_H.view(heads) * distance.double() ** p_H.view(heads)
