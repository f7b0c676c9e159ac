"""Selects the learning rate of each scheme from grid.lr by the validation loss at the training length.

Every scheme of an experiment with `grid.lr` is trained at each rate with every seed. The rate with the lowest mean
validation loss over the seeds is selected, by the same rule for all schemes, and only its models are evaluated. The loss
is on held-out text, and never at a length beyond the training length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from posbench.errors import ConfigError
from posbench.identity import hashed_fields, identity
from posbench.instantiate import by_name
from posbench.plan.cell import ModelPlan, Plan
from posbench.sweep.jobs import ResultsFolder
from posbench.training import checkpoints


def select_learning_rates(plan: Plan, results_folder: ResultsFolder) -> tuple[Plan, str]:
    """Returns the plan with the models and cells of the selected rates, and a sentence that lists the rates.

    Raises:
        ConfigError: if a scheme has diverged at every rate.
    """
    rates: dict[str, dict[float, list[ModelPlan]]] = {}
    for model in plan.models:
        rates.setdefault(settings_but_rate(model), {}).setdefault(model.settings.train.lr, []).append(model)
    kept: dict[str, ModelPlan] = {}
    selected = []
    for tried in rates.values():
        losses = {
            rate: final_validation_loss([results_folder.model_dir(model) for model in models])
            for rate, models in tried.items()
        }
        best = min(losses, key=lambda rate: losses[rate])
        if not math.isfinite(losses[best]):
            name = tried[best][0].label
            raise ConfigError(f"{name} diverged at every rate of grid.lr {list(losses)}: give lower rates")
        kept |= {model.id: model for model in tried[best]}
        selected.append(f"{tried[best][0].settings.scheme.name} {best:g}")
    cells = [cell for cell in plan.cells if base_of(cell.model).id in kept]
    grid = ", ".join(f"{rate:g}" for rate in sorted({rate for tried in rates.values() for rate in tried}))
    note = (
        f"Learning rate of each scheme by the lowest validation loss at the training length, of {grid}: "
        f"{', '.join(dict.fromkeys(selected))}."
    )
    return replace(plan, models=list(kept.values()), cells=cells), note


def base_of(model: ModelPlan) -> ModelPlan:
    """Returns the base model of a fine-tuned model, or the model itself."""
    return model.fine_tuning.base_model if model.fine_tuning else model


def settings_but_rate(model: ModelPlan) -> str:
    """Returns a hash of all settings of a model except learning rates and seed."""
    scheme, size = model.settings.scheme, hashed_fields(model.settings.size)
    train = hashed_fields(model.settings.train)
    for key in ("lr", "muon_lr", "seed"):
        del train[key]
    return identity([scheme.name, by_name(scheme.build), size, model.corpus, train])


def final_validation_loss(folders: Sequence[Path]) -> float:
    """Returns the mean final validation loss of trained models in nats per token; infinite if one has diverged."""
    losses = []
    for folder in folders:
        metadata = checkpoints.read_metadata(folder / "final")
        log = metadata["log_history"] if metadata and metadata["status"] == "ok" else []
        losses.append(log[-1].get("validation_loss", math.inf) if log else math.inf)
    return sum(losses) / len(losses)
