"""Precision of intermediate results: what kernels and biases compute in float32 or float64."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def autocast_disabled(x: Tensor) -> AbstractContextManager:
    """Returns a context that disables autocast on the device of `x`: long sums need float32, not bfloat16."""
    kind = x.device.type
    available = torch.amp.autocast_mode.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if available else nullcontext()


def upcast(x: Tensor) -> Tensor:
    """Casts to float32, the precision in which kernels compute; float64 stays float64."""
    return x if x.dtype == torch.float64 else x.float()


class _ReverseCumsum(torch.autograd.Function):
    """Cumulative sum from the end, whose backward pass is one cumsum; autograd's own makes three more passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.flip(-1).cumsum(-1).flip(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.cumsum(-1)


def reverse_cumsum(x: Tensor) -> Tensor:
    """Returns the sums over the last dimension from each index to the end.

    The total minus a cumsum would be a small difference of large numbers near the end.
    """
    return _ReverseCumsum.apply(x)


def lower_triangle(x: Tensor, diagonal: int = 0) -> Tensor:
    """Returns finite matrices over the last two dimensions with zeros above a diagonal, as `tril`.

    On a CPU, `tril` of many small matrices takes two to three times as long as this product.
    """
    return x * torch.ones(x.shape[-2:], dtype=x.dtype, device=x.device).tril(diagonal)
