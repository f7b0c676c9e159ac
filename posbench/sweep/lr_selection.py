"""The learning rate of each scheme from one declared grid: the lowest validation loss where it was trained.

Every scheme of an experiment with `grid.lr` is trained at each rate on every seed; one rate a scheme is kept by the
same rule for all, the mean over its seeds, and only that is evaluated. Text that no training saw decides, never a
length beyond the trained one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from posbench.errors import ConfigError
from posbench.identity import hashed_fields, identity
from posbench.instantiate import by_name
from posbench.sweep.cell import ModelPlan, Plan
from posbench.sweep.jobs import ResultsFolder
from posbench.training import checkpoints


def select_learning_rates(plan: Plan, results_folder: ResultsFolder) -> tuple[Plan, str]:
    """The plan without the models of other rates and their cells, and what was chosen in a sentence.

    Raises:
        ConfigError: if a scheme has diverged at every rate.
    """
    rates: dict[str, dict[float, list[ModelPlan]]] = {}
    for model in plan.models:
        rates.setdefault(settings_but_rate(model), {}).setdefault(model.settings.train.lr, []).append(model)
    kept: dict[str, ModelPlan] = {}
    said = []
    for tried in rates.values():
        losses = {
            rate: final_validation_loss([results_folder.model_dir(model) for model in models])
            for rate, models in tried.items()
        }
        best = min(losses, key=lambda rate: losses[rate])
        if not math.isfinite(losses[best]):
            name = tried[best][0].label
            raise ConfigError(f"{name} diverged at every rate of grid.lr {list(losses)}: give lower ones")
        kept |= {model.id: model for model in tried[best]}
        one = tried[best][0].settings
        said.append(f"{one.scheme.name} {best:g}")
    cells = [cell for cell in plan.cells if base_of(cell.model).id in kept]
    grid = ", ".join(f"{rate:g}" for rate in sorted({one for tried in rates.values() for one in tried}))
    note = (
        f"Learning rate of each scheme by the lowest validation loss at the training length, of {grid}: "
        f"{', '.join(dict.fromkeys(said))}."
    )
    return replace(plan, models=list(kept.values()), cells=cells), note


def base_of(model: ModelPlan) -> ModelPlan:
    """The model that a fine-tuned one was made from; another is its own."""
    return model.fine_tuning.base_model if model.fine_tuning else model


def settings_but_rate(model: ModelPlan) -> str:
    """All settings of a model but its rates and its seed."""
    one = model.settings
    train = {
        key: value for key, value in hashed_fields(one.train).items() if key not in ("lr", "muon_lr", "seed")
    }
    return identity(
        [one.scheme.name, by_name(one.scheme.build), hashed_fields(one.size), model.corpus, train]
    )


def final_validation_loss(folders: Sequence[Path]) -> float:
    """Nats per token on held-out text at the end of training, the mean; infinite where one has diverged."""
    found = []
    for folder in folders:
        metadata = checkpoints.read_metadata(folder / "final") or {"status": "missing", "log_history": []}
        last = (
            metadata["log_history"][-1].get("validation_loss", math.inf)
            if metadata["log_history"]
            else math.inf
        )
        found.append(last if metadata["status"] == "ok" else math.inf)
    return sum(found) / len(found)
