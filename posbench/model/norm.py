"""The norms in which pretrained families differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.kernels.cpu.rms_norm import RMSNorm
from posbench.model.architecture import Architecture


class OffsetRMSNorm(nn.RMSNorm):
    """RMSNorm with the weight 1 + w, computed in float32 or more and rounded once, as in Gemma."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        scaled = F.rms_norm(x.to(dtype), self.normalized_shape, 1 + self.weight.to(dtype), self.eps)
        return scaled.to(x.dtype)


NORMS: dict[str, type[nn.RMSNorm] | type[nn.LayerNorm]] = {
    "rms": RMSNorm,
    "offset_rms": OffsetRMSNorm,
    "layer": nn.LayerNorm,
}


def build_norm(config: Architecture, width: int, wanted: bool = True) -> nn.Module:
    """Returns the norm of an architecture over `width` dimensions, or the identity if it is not wanted."""
    return NORMS[config.norm](width, eps=config.norm_eps) if wanted else nn.Identity()
