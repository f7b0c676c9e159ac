"""1.5-entmax: a normaliser like the softmax that gives a weight of exactly 0 to low logits.

Peters, Niculae, Martins. Sparse Sequence-to-Sequence Models. ACL 2019, section 3. arXiv:1905.05702.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posbench.position.biases import AttentionBias, RowwiseBias

STEPS = 24  # of Newton's method at most; half as many reach float64 for rows of 65536 keys


@dataclass(frozen=True, eq=False)
class LogWeights(RowwiseBias):
    """A bias with which logits become the logarithms of attention weights, for a normaliser other than the softmax.

    Attributes:
        inner: bias of the logits before the normaliser, None if there is none.
    """

    inner: AttentionBias | None = None


class LogEntmax15(torch.autograd.Function):
    """Logits over the last dimension, -inf where hidden -> logarithms of their 1.5-entmax weights, -inf for weight 0.

    weight = max(x - tau, 0)^2 with x = (logit - largest logit) / 2 and the tau for which weights sum to 1. The sum
    falls and is convex in tau, so Newton's method from tau = -1, where it is at least 1, never passes the solution.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        # Below -1 no weight is left.
        x = ((logits - logits.amax(-1, keepdim=True)) / 2).clamp(min=-1)
        tau = torch.full_like(x[..., :1], -1)
        for _ in range(STEPS):
            above = (x - tau).clamp_(min=0)
            excess = torch.linalg.vector_norm(above, dim=-1, keepdim=True).square() - 1
            tau = tau + excess / (2 * above.sum(-1, keepdim=True))
            # On a GPU the test would wait for the device.
            if x.device.type == "cpu" and excess.max() < 8 * torch.finfo(x.dtype).eps:
                break
        root = (x - tau).clamp_(min=0)
        ctx.save_for_backward(root)
        # On a CPU the logarithm of 0 takes ten times as long as others.
        log_root = root.clamp(min=torch.finfo(root.dtype).tiny).log_()
        return log_root.mul_(2).masked_fill_(root == 0, -torch.inf)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        by_root = torch.where(root > 0, gradient / root, 0)
        return by_root - root * (by_root.sum(-1, keepdim=True) / root.sum(-1, keepdim=True))
