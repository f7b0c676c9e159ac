"""Optimizers and the learning rate schedule."""

from __future__ import annotations

import torch

from posbench.config.schema import TrainSettings
from posbench.model.gpt import GPT
from posbench.training.compile import compile_module
from posbench.training.muon import Muon, muon_update


def lr_multiplier(settings: TrainSettings, step: int) -> float:
    """Returns the fraction of the peak rate at `step`: linear warmup, constant, linear decay to zero after the last step."""
    up = (step + 1) / max(1.0, settings.warmup_fraction * settings.steps)
    down = (settings.steps - step) / max(1.0, settings.decay_fraction * settings.steps)
    return min(1.0, up, down)


def build_optimizers(
    model: GPT, settings: TrainSettings, compiles: bool = False
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Returns the optimizers, each with its peak learning rate.

    Under `muon` the matrices of the blocks are updated by Muon and all other parameters, among them embeddings and
    those of the scheme, by AdamW.

    Args:
        compiles: whether to compile the update of Muon; that of AdamW is fused.
    """
    optimizers: list[tuple[torch.optim.Optimizer, float]] = []
    others = list(model.parameters())
    if settings.optimizer == "muon":
        matrices = model.matrix_parameters()
        by_muon = {id(parameter) for parameter, _ in matrices}
        others = [parameter for parameter in others if id(parameter) not in by_muon]
        update = compile_module(muon_update) if compiles else None
        optimizers.append((Muon(matrices, settings.muon_lr, update=update), settings.muon_lr))
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )
    return [*optimizers, (adamw, settings.lr)]
