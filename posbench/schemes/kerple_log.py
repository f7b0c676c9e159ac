"""KERPLE, logarithmic: a trained penalty that grows with the logarithm of the distance.

Chi et al. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. NeurIPS 2022,
section 4. arXiv:2205.09921. How parameters are kept in their ranges: posbench/position/kerple.py.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.kerple import Kerple, within


@register("scheme/kerple_log")
class KerpleLog(Kerple):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - p_h * log(1 + a_h * (i - j)), with p, a >= 0.01."""

    def penalty(self, distance: Tensor) -> Tensor:
        growth = torch.log1p(torch.tensordot(within(self.a_H), distance.double(), 0))
        return -torch.einsum("h,h...->h...", within(self.p_H), growth)
