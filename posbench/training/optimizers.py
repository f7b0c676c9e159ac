"""Optimizers and the learning rate schedule."""

from __future__ import annotations

import torch
from torch import nn

from posbench.config.schema import TrainSettings
from posbench.model.gpt import GPT
from posbench.position.scheme import PositionScheme
from posbench.training.compile import CompiledUpdate
from posbench.training.muon import Muon, muon_update

WEIGHTED = (nn.Linear, nn.Embedding, nn.Conv1d)


def lr_multiplier(settings: TrainSettings, step: int) -> float:
    """Returns the fraction of the peak rate at `step`: linear warmup, constant, linear decay to zero after the last step."""
    up = (step + 1) / max(1.0, settings.warmup_fraction * settings.steps)
    down = (settings.steps - step) / max(1.0, settings.decay_fraction * settings.steps)
    return min(1.0, up, down)


def build_optimizers(
    model: GPT, settings: TrainSettings, compiles: bool = False, required: bool = False
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Returns the optimizers, each with its peak learning rate.

    Under `muon` the matrices of the blocks are updated by Muon and all other parameters, among them embeddings and
    those of the scheme, by AdamW. Weight decay applies to `decayed_parameters` under both.

    Args:
        compiles: whether to compile the update of Muon; that of AdamW is fused.
        required: whether a failure to compile is an error.
    """
    optimizers: list[tuple[torch.optim.Optimizer, float]] = []
    others = list(model.parameters())
    if settings.optimizer == "muon":
        matrices = model.matrix_parameters()
        by_muon = {id(parameter) for parameter, _ in matrices}
        others = [parameter for parameter in others if id(parameter) not in by_muon]
        update = CompiledUpdate(muon_update, required) if compiles else None
        muon = Muon(matrices, settings.muon_lr, weight_decay=settings.weight_decay, update=update)
        optimizers.append((muon, settings.muon_lr))
    decayed = decayed_parameters(model)
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in others if id(p) in decayed], "weight_decay": settings.weight_decay},
            {"params": [p for p in others if id(p) not in decayed], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )
    return [*optimizers, (adamw, settings.lr)]


def decayed_parameters(model: nn.Module) -> set[int]:
    """Returns the `id` of each parameter to which weight decay applies, by its role and not its shape.

    These are the weights of linear layers, convolutions and embeddings, and the parameters that a scheme declares in
    `PositionScheme.decayed_parameters`. Biases, norms, gains and scalars do not decay, also where they are stacked by
    layer and head.
    """
    found = set()
    for module in model.modules():
        if isinstance(module, WEIGHTED):
            found.add(id(module.weight))
        elif isinstance(module, PositionScheme):
            found |= {id(getattr(module, name)) for name in module.decayed_parameters}
    return found
