"""Selects the learning rate of each scheme from grid.lr by the validation loss at the training length.

Every scheme of an experiment with `grid.lr` is trained at each rate with every seed. The rate with the lowest mean
validation loss over the seeds is selected, by the same rule for all schemes, and only its models are evaluated. The loss
is on held-out text, or on held-out synthetic sequences where no text is trained, and never at a length beyond the training
length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from posbench import checksums
from posbench.errors import ConfigError
from posbench.files import raise_if_transient
from posbench.identity import hashed_fields, identity
from posbench.instantiate import by_name
from posbench.plan.cell import ModelPlan, Plan

RATES = ("lr", "muon_lr")


def select_learning_rates(plan: Plan, models: Path) -> tuple[Plan, str]:
    """Returns the plan with the models and cells of the selected rates, and a sentence that lists the rates.

    Args:
        models: the folder of all models.

    Raises:
        ConfigError: if a scheme has diverged at every rate.
    """
    from posbench.plan.labels import (
        differing_labels,
    )  # imports tasks, and posbench status imports this module

    kept: dict[str, ModelPlan] = {}
    selected: dict[str, list[ModelPlan]] = {}
    for tried in rates_tried(plan):
        best = best_rate([[model.id for model in one] for one in tried], models)
        if best is None:
            given = [one[0].settings.train.lr for one in tried]
            raise ConfigError(
                f"{tried[0][0].label} diverged at every rate of grid.lr {given}: give lower rates"
            )
        kept |= {model.id: model for model in tried[best]}
        selected.setdefault(tried[best][0].settings.scheme.name, []).append(tried[best][0])
    cells = [cell for cell in plan.cells if base_of(cell.model).id in kept]
    grid = ", ".join(f"{rate:g}" for rate in sorted({model.settings.train.lr for model in plan.models}))
    rates = []
    for name, models_of_scheme in selected.items():
        labels = differing_labels(models_of_scheme, RATES)
        rates += [f"{labels.get(one.id, name)} {one.settings.train.lr:g}" for one in models_of_scheme]
    note = (
        f"Learning rate of each scheme by the lowest validation loss at the training length, of {grid}: "
        f"{', '.join(dict.fromkeys(rates))}."
    )
    return replace(plan, models=list(kept.values()), cells=cells), note


def rates_tried(plan: Plan) -> list[list[list[ModelPlan]]]:
    """Returns the models of each rate, for each group of models that differ only in rate and seed."""
    groups: dict[str, dict[float, list[ModelPlan]]] = {}
    for model in plan.models:
        groups.setdefault(settings_but_rate(model), {}).setdefault(model.settings.train.lr, []).append(model)
    return [list(rates.values()) for rates in groups.values()]


def best_rate(tried: Sequence[Sequence[str]], models: Path) -> int | None:
    """Returns the index of the rate with the lowest mean loss, given the ids of its models; None if all diverged."""
    losses = [final_validation_loss([models / model for model in one]) for one in tried]
    best = min(range(len(losses)), key=losses.__getitem__)
    return best if math.isfinite(losses[best]) else None


def base_of(model: ModelPlan) -> ModelPlan:
    """Returns the base model of a fine-tuned model, or the model itself."""
    return model.fine_tuning.base_model if model.fine_tuning else model


def settings_but_rate(model: ModelPlan) -> str:
    """Returns a hash of all settings of a model except learning rates and seed."""
    scheme, size = model.settings.scheme, hashed_fields(model.settings.size)
    train = hashed_fields(model.settings.train)
    for key in (*RATES, "seed"):
        del train[key]
    return identity([scheme.name, by_name(scheme.build), size, model.corpus, train])


def final_validation_loss(folders: Sequence[Path]) -> float:
    """Returns the mean final validation loss of trained models in nats per token; infinite if one has diverged or is NaN."""
    losses = []
    for folder in folders:
        try:
            metadata = checksums.read_json(folder / "final" / "metadata.json")
        except (OSError, checksums.DamageError) as error:
            raise_if_transient(folder, error)
            metadata = {"status": "damaged"}
        log = metadata["log_history"] if metadata["status"] == "ok" else []
        losses.append(log[-1].get("validation_loss", math.inf) if log else math.inf)
    mean = sum(losses) / len(losses)
    return math.inf if math.isnan(mean) else mean  # NaN would be the minimum where it comes first
