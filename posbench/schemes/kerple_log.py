"""KERPLE, logarithmic: a trained penalty that grows with the logarithm of the distance.

Chi et al. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. NeurIPS 2022,
section 4. arXiv:2205.09921. As in the authors' code, the penalty is added after the division by sqrt(D); equation 1
divides both. Parameters and their ranges: posbench/position/kerple.py.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.kerple import MIN_PARAMETER, Kerple
from posbench.position.straight_through import straight_through_clamp


@register("scheme/kerple_log")
class KerpleLog(Kerple):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - p_h * log(1 + a_h * (i - j)), with p, a >= 0.01."""

    def penalty(self, distance: Tensor) -> Tensor:
        p_H, a_H = (straight_through_clamp(x, MIN_PARAMETER) for x in (self.p_H, self.a_H))
        growth = torch.log1p(torch.tensordot(a_H, distance.double(), 0))
        return -torch.einsum("h,h...->h...", p_H, growth)
