"""RMSNorm on the CPU in few passes over memory; torch writes it out in ten, forward and backward.

Torch's fused backward pass of LayerNorm takes means and scales as inputs. With means of zero it is that of RMSNorm,
except that it makes the gradient of each row sum to zero; the sum is added again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, as `torch.nn.RMSNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.eps is not None
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight_W: Tensor, eps: float) -> Tensor:
    """Computes RMSNorm over the last dimension; by torch's own function except in float32 and float64 on the CPU."""
    plain = x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64)
    if torch.compiler.is_compiling() or plain or x.dtype != weight_W.dtype:
        return F.rms_norm(x, weight_W.shape, weight_W, eps)
    return _RMSNorm.apply(x.contiguous(), weight_W, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        rstd = length.square_().div_(len(weight)).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rstd)
        return (x * rstd).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, rstd = ctx.saved_tensors
        fused, mean = torch.ops.aten.native_layer_norm_backward, torch.zeros_like(rstd)
        needed = [*ctx.needs_input_grad[:2], False]
        d_x, d_weight, _ = fused(d_out, x, weight.shape, mean, rstd, weight, None, needed)
        if d_x is not None:
            row_sum = torch.mv(d_out.reshape(-1, len(weight)), weight).view_as(rstd)
            d_x.add_(row_sum.mul_(rstd).div_(len(weight)))
        return d_x, d_weight, None
