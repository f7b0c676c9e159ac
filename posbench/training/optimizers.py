"""Which optimizer updates which parameter, and how fast at each step."""

from __future__ import annotations

import torch

from posbench.config.schema import TrainSettings
from posbench.model.gpt import GPT
from posbench.training.compile import compile_module
from posbench.training.muon import Muon, muon_update


def lr_multiplier(settings: TrainSettings, step: int) -> float:
    """The share of the peak rate at `step`: linear up, flat, linear down to zero after the last step."""
    up = (step + 1) / max(1.0, settings.warmup_fraction * settings.steps)
    down = (settings.steps - step) / max(1.0, settings.decay_fraction * settings.steps)
    return min(1.0, up, down)


def build_optimizers(
    model: GPT, settings: TrainSettings, compiles: bool = False
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each optimizer with its peak rate. Muon takes the blocks' matrices, never embeddings or a scheme's tables.

    Args:
        compiles: Muon's step; AdamW's is fused already.
    """
    found: list[tuple[torch.optim.Optimizer, float]] = []
    others = list(model.parameters())
    if settings.optimizer == "muon":
        matrices = model.matrix_parameters()
        taken = {id(parameter) for parameter, _ in matrices}
        others = [parameter for parameter in others if id(parameter) not in taken]
        update = compile_module(muon_update) if compiles else None
        found.append((Muon(matrices, settings.muon_lr, update=update), settings.muon_lr))
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )
    return [*found, (adamw, settings.lr)]
