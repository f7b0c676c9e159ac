"""Chunked cross-entropy over a large vocabulary, with gradients computed in the forward pass.

All logits of 32k tokens at a vocabulary of 50k take 6.6 GB in float32, and their gradient as much again. As in Liger
Kernel (arXiv:2410.10989, section 3), each chunk of rows contributes its loss and gradients and is freed: no logits are
kept and none are computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at once, 256 MiB in float32 on the CPU and 1 GiB on a GPU, where each further piece costs a pass over the
# gradient of the head; up to this number they are computed in one piece.
LOGITS = {"cpu": 1 << 26, "cuda": 1 << 28}
# Target of a position that is left out, as in torch.nn.functional.cross_entropy.
IGNORE_INDEX = -100


def cross_entropy(
    hidden_NW: Tensor, weight_VW: Tensor, target_N: Tensor, logits: int | None = None
) -> Tensor:
    """Returns the sum of the cross-entropies of softmax(hidden @ weight.T), in nats: a scalar, float32 or float64.

    Args:
        hidden_NW: hidden states.
        weight_VW: weight of the output head.
        target_N: target ids; IGNORE_INDEX leaves a position out.
        logits: number of logits held at once; by default that of LOGITS for the device.
    """
    rows = max(1, (logits or LOGITS.get(hidden_NW.device.type, LOGITS["cpu"])) // len(weight_VW))
    if rows >= len(hidden_NW):
        if _in_place(hidden_NW, weight_VW):
            return _InPlace.apply(hidden_NW, weight_VW, target_N)
        return F.cross_entropy(_logits(hidden_NW, weight_VW), target_N, reduction="sum")
    return _Chunked.apply(hidden_NW, weight_VW, target_N, rows, torch.is_grad_enabled())


def _logits(hidden_NW: Tensor, weight_VW: Tensor) -> Tensor:
    logits = F.linear(hidden_NW, weight_VW)  # in the precision of autocast
    return logits if logits.dtype == torch.float64 else logits.float()


def _in_place(hidden: Tensor, weight: Tensor) -> bool:
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return hidden.device.type == "cpu" and hidden.dtype == weight.dtype in (torch.float32, torch.float64)


class _InPlace(torch.autograd.Function):
    """One matrix of logits becomes log-probabilities, then its own gradient; torch's own function makes three."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        logits, chosen = F.linear(hidden, weight), target[:, None]
        torch.ops.aten._log_softmax.out(logits, -1, False, out=logits)
        ctx.save_for_backward(hidden, weight, target)
        ctx.logits, ctx.differentiated = logits, False
        return -logits.gather(-1, chosen.clamp(min=0)).masked_fill_(chosen == IGNORE_INDEX, 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, target = ctx.saved_tensors
        d_logits, chosen, ignored = ctx.logits, target[:, None], target == IGNORE_INDEX
        if not ctx.differentiated:  # a second backward pass of a retained graph finds the gradient
            d_logits.exp_().scatter_add_(-1, chosen.clamp(min=0), d_logits.new_full(chosen.shape, -1.0))
            if ignored.any():
                d_logits[ignored] = 0
            ctx.differentiated = True
        needed, scale = ctx.needs_input_grad, gradient.item()
        # Without beta the first argument gives the shape only.
        d_hidden = torch.addmm(hidden, d_logits, weight, beta=0, alpha=scale) if needed[0] else None
        d_weight = torch.addmm(weight, d_logits.mT, hidden, beta=0, alpha=scale) if needed[1] else None
        return d_hidden, d_weight, None


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, rows: int, grad_enabled: bool
    ) -> Tensor:
        # needs_input_grad is true of parameters under no_grad too.
        hidden_grad, weight_grad = (grad_enabled and needed for needed in ctx.needs_input_grad[:2])
        d_hidden = torch.empty_like(hidden) if hidden_grad else None
        # At least float32: the sum runs over many chunks.
        sum_dtype = torch.promote_types(weight.dtype, torch.float32)
        d_weight = torch.zeros_like(weight, dtype=sum_dtype) if weight_grad else None
        loss = hidden.new_zeros((), dtype=sum_dtype)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits, chosen = _logits(hidden[part], weight), target[part, None]
            counts, chosen = (chosen != IGNORE_INDEX).to(logits.dtype), chosen.clamp(min=0)
            lse = logits.logsumexp(-1, keepdim=True)
            loss += ((lse - logits.gather(-1, chosen)) * counts).sum()
            if not (hidden_grad or weight_grad):
                continue
            d_logits = logits.sub_(lse).exp_()
            d_logits.scatter_add_(-1, chosen, d_logits.new_full(chosen.shape, -1.0))
            d_logits = d_logits.mul_(counts).to(torch.promote_types(hidden.dtype, weight.dtype))
            if d_hidden is not None:
                d_hidden[part] = d_logits @ weight
            if d_weight is not None:
                d_weight += d_logits.mT @ hidden[part].to(d_logits.dtype)
        ctx.save_for_backward(d_hidden, None if d_weight is None else d_weight.to(weight.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        parts = (None if one is None else one * gradient.to(one.dtype) for one in (d_hidden, d_weight))
        return (*parts, None, None, None)
