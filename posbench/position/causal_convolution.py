"""A convolution of each channel over the last few tokens.

Torch's convolution takes channels before tokens, so that two transpositions are needed, and its backward pass on a CPU
takes twice as long as this one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def causal_convolution(x_BGSD: Tensor, weight_CN: Tensor) -> Tensor:
    """Returns sum over n of weight[c, n] * (channel c of x, N - 1 - n tokens before), (B, G, S, D); x is 0 before token 0.

    Args:
        x_BGSD: channels c = g D + d.
        weight_CN: at least G D channels, of which the first are used.
    """
    groups, dims = x_BGSD.shape[1], x_BGSD.shape[3]
    taps_NG1D = weight_CN[: groups * dims].T.unflatten(1, (groups, 1, dims))
    return _CausalConvolution.apply(x_BGSD, taps_NG1D.to(x_BGSD.dtype))


class _CausalConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps)
        out = x * taps[-1]
        for lag, tap in enumerate(taps[:-1].flip(0), 1):
            out[:, :, lag:].addcmul_(x[:, :, :-lag], tap)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor]:
        x, taps = ctx.saved_tensors
        d_x, d_taps = d_out * taps[-1], [(d_out * x).sum((0, 2))]
        for lag, tap in enumerate(taps[:-1].flip(0), 1):
            d_x[:, :, :-lag].addcmul_(d_out[:, :, lag:], tap)
            d_taps.insert(0, (d_out[:, :, lag:] * x[:, :, :-lag]).sum((0, 2)))
        return d_x, torch.stack(d_taps)[:, :, None]
