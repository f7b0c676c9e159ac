"""Clipped RoPE: the lowest frequencies are slowed by a smooth window, the slowest one to 0.

Li et al. CoPE: Clipped RoPE as A Scalable Free Lunch for Long Context LLMs. 2026, section 4.2.
arXiv:2602.05258. The window is that of the authors' github.com/hrlics/CoPE, a function of the index (in the paper, of the
frequency), which clips 20 of 64 frequencies; `cope` is another scheme here. By default, those with a period above the
training length are clipped, as in https://github.com/ml-explore/mlx-lm/pull/1387.
Deviations: without the authors' continued training, for which rope_theta is 1e7, and YaRN past its length.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling
from posbench.position.scheme import PositionScheme


@register("extension/clipped_rope")
class ClippedRoPE(FrequencyScaling):
    """The lowest n frequencies become theta_m (1 + cos(pi c / (n - 1))) / 2, c = 0 .. n - 1; n is `n_clipped`.

    With n of 1 or 0 nothing changes.
    """

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, n_clipped: int | None = None
    ) -> None:
        super().__init__(inner, context, 1.0)
        if n_clipped is not None and (isinstance(n_clipped, bool) or n_clipped < 0):
            raise ConfigError(
                f"n_clipped {n_clipped!r} of clipped_rope: give a number of frequencies of at least 0, or null for those "
                "with a period above the training length"
            )
        self.n_clipped = n_clipped

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"n_clipped": 0}

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        total, given = len(inv_freq_M), self.n_clipped
        period_past_M = inv_freq_M * self.context.shape.train_len < 2 * math.pi
        count = (
            period_past_M.sum()
            if given is None
            else period_past_M.new_tensor(min(given, total), dtype=torch.int64)
        )
        index_M = torch.arange(total, device=inv_freq_M.device)
        step_M = (index_M - (total - count)).clamp(min=0).double()
        return inv_freq_M * (1 + (math.pi * step_M / (count - 1).clamp(min=1)).cos()) / 2
