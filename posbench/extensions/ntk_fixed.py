"""NTK-RoPE-fixed: frequency m is slowed by k^((m + 1) / M), the fastest one included.

Su. Transformer Upgrade Path 11: Taking Beta-Base Positions to the End. 2023 (in Chinese).
https://kexue.fm/archives/9706, the mixed radix with lambda_1 = ... = lambda_{d/2}, lambda^(d/2) = k.
Compared with the article's earlier scaling (ntk with the exponent su), every exponent is one step further; the slowest
frequency is divided by k, as in bloc97's scaling.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.factor_extension import FrequencyScaling


@register("extension/ntk_fixed")
class NTKFixed(FrequencyScaling):
    """theta_m becomes theta_m * k^(-(m + 1) / M), m = 0 .. M - 1; k is `factor`."""

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        count = len(inv_freq_M)
        step_M = torch.arange(1, count + 1, device=inv_freq_M.device).double()
        return inv_freq_M * self.factor ** (-step_M / count)
