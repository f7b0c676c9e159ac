"""Muon: momentum with orthogonalised updates, for the weight matrices of the blocks.

Keller Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024.
https://kellerjordan.github.io/posts/muon. Unlike in torch.optim.Muon, the iteration runs in float32, and matrices of
the same shape are processed as one batch, since small models are bound by the number of kernel launches. Weight
decay is decoupled, as in Jordan's code and in Liu et al. Muon is Scalable for LLM Training. 2025, section 2.2
(arXiv:2502.16982): every step multiplies the matrices by 1 - lr * decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """w <- (1 - lr * weight_decay) * w - lr * sqrt(max(1, rows / columns)) * orthogonalise(u).

    u = (1 - momentum) * g + momentum * m, g the gradient and m its running mean.

    Args:
        matrices: parameters, each with the number of matrices stacked in its rows, which are orthogonalised one by one.
        update: a compiled `muon_update`; None for the uncompiled one.
    """

    def __init__(
        self,
        matrices: Iterable[tuple[torch.nn.Parameter, int]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        update: Callable[..., None] | None = None,
    ) -> None:
        pairs = list(matrices)
        self._stacked = {id(parameter): count for parameter, count in pairs}
        self._update = update
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([parameter for parameter, _ in pairs], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            members = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in members:
                if not self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            if not members:
                continue
            # Compiled code would specialise on a number; filling a tensor on the device needs no synchronisation.
            lr = torch.full((), group["lr"], device=members[0].device) if self._update else group["lr"]
            (self._update or muon_update)(
                members,
                [parameter.grad for parameter in members],
                [self.state[parameter]["momentum"] for parameter in members],
                [self._stacked[id(parameter)] for parameter in members],
                lr,
                group["momentum"],
                group["weight_decay"],
            )


def muon_update(
    parameters: list[torch.nn.Parameter],
    gradients: list[Tensor],
    momenta: list[Tensor],
    stacked: list[int],
    lr: float | Tensor,
    momentum: float,
    weight_decay: float = 0.0,
) -> None:
    """Updates all matrices in place, without synchronising with the device."""
    by_shape: dict[tuple[int, ...], list[tuple[torch.nn.Parameter, Tensor]]] = {}
    for parameter, gradient, running, count in zip(parameters, gradients, momenta, stacked, strict=True):
        running.lerp_(gradient, 1 - momentum)
        matrices = gradient.lerp(running, momentum).unflatten(0, (count, -1))
        by_shape.setdefault(tuple(matrices.shape[1:]), []).append((parameter, matrices))
    for shape, members in by_shape.items():
        orthogonal = orthogonalise(torch.cat([matrices for _, matrices in members]))
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        parts = orthogonal.split([len(matrices) for _, matrices in members])
        for (parameter, _), part in zip(members, parts, strict=True):
            update = part.flatten(0, 1)
            if weight_decay:
                parameter.mul_(1 - lr * weight_decay)
            if isinstance(lr, Tensor):
                parameter.sub_(update * (lr * scale))
            else:
                parameter.sub_(update, alpha=lr * scale)


def orthogonalise(update_NRC: Tensor, steps: int = 5) -> Tensor:
    """Moves the singular values of each of N matrices (R, C) to about 1 by a quintic Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = update_NRC.shape[1] > update_NRC.shape[2]
    x = update_NRC.mT if tall else update_NRC
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x.mT if tall else x
