"""Bounds on trained parameters that let a parameter outside of them return."""

import torch
from torch import Tensor


def straight_through_clamp(parameter: Tensor, low: float, high: float = torch.inf) -> Tensor:
    """Returns the parameter clamped to [low, high] in float64, with the gradient of the identity."""
    exact = parameter.double()
    return exact + (exact.clamp(low, high) - exact).detach()
