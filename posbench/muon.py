"""Muon: momentum whose update is orthogonalised, for the weight matrices of the blocks.

Keller Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024.
https://kellerjordan.github.io/posts/muon. Unlike torch.optim.Muon the iteration runs in float32, and
matrices of one shape run as one batch: small models are bound by the number of calls. Where ranks hold parts
of a matrix, each orthogonalises the whole of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from posbench.parallel import like, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """w <- w - lr * sqrt(max(1, rows / columns)) * orthogonalise(g + momentum * m), m the running momentum.

    Args:
        matrices: each parameter with the number of maps stacked in its rows, which are orthogonalised apart.
    """

    def __init__(
        self, matrices: Iterable[tuple[torch.nn.Parameter, int]], lr: float, momentum: float = 0.95
    ) -> None:
        pairs = list(matrices)
        self._maps = {id(parameter): maps for parameter, maps in pairs}
        super().__init__([parameter for parameter, _ in pairs], {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = whole(parameter.grad.lerp(state["momentum"], group["momentum"]))
                maps = update.unflatten(0, (self._maps[id(parameter)], -1))
                by_shape[maps.shape[1:]].append((parameter, maps))
            for shape, members in by_shape.items():
                made = orthogonalise(torch.cat([maps for _, maps in members]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                parts = made.split([len(maps) for _, maps in members])
                for (parameter, _), part in zip(members, parts, strict=True):
                    parameter.sub_(like(part.flatten(0, 1), parameter), alpha=group["lr"] * scale)


def orthogonalise(update_NRC: Tensor, steps: int = 5) -> Tensor:
    """Each (R, C) matrix with its singular values pushed to about 1, by a quintic Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = update_NRC.shape[1] > update_NRC.shape[2]
    x = update_NRC.mT if tall else update_NRC
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x.mT if tall else x
