"""Labels that tell the models of a plan apart, so that no table or figure averages two of them as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import Any

from posbench import escaping
from posbench.errors import ConfigError
from posbench.instantiate import by_name, instantiate
from posbench.plan.cell import Cell, ModelPlan, Plan
from posbench.tasks.task import Task


def with_distinct_labels(plan: Plan) -> Plan:
    """Returns the plan with labels under which every number belongs to one identity.

    Rows carry labels, and series are rows of equal labels: models of different settings under one label would be
    averaged. The labels of such models get the settings in which they differ, as in "rope (lr 0.001)".

    Raises:
        ConfigError: if two evaluations of one model would be averaged or joined to one curve, such as one task with two
            settings.
    """
    _check_curves(plan.cells)
    shared = _sharing_a_label(plan.cells)
    if not shared:
        return plan
    families = defaultdict(list)
    for model in plan.all_models:
        families[_family(model)].append(model)
    labels: dict[str, str] = {}
    for family in {_family(cell.model) for cells in shared for cell in cells}:
        labels |= differing_labels(families[family])
    models = {model.id: _relabelled(model, labels) for model in plan.all_models}
    cells = [replace(cell, model=models[cell.model.id]) for cell in plan.cells]
    for same in _sharing_a_label(cells):
        raise ConfigError(
            f"{_what(same[0])} and {_what(same[1])} have one label: give one of them another name"
        )
    return replace(plan, models=[models[model.id] for model in plan.models], cells=cells)


def _check_curves(cells: Sequence[Cell]) -> None:
    """Raises ConfigError for one task with two settings at two lengths of one model, which a figure would join."""
    first: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        task: Task = instantiate(cell.task.build, Task)
        one = first.setdefault(
            (cell.model.id, cell.extension.name, task.task, task.variant, task.protocol), cell
        )
        if one.length != cell.length and (difference := _difference(one, cell)):
            raise ConfigError(
                f"{_what(one)} and at {cell.length} tokens have different settings ({difference}), which one curve would "
                "join: give both the same settings, or different experiments (name=...)"
            )


def _sharing_a_label(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Groups of cells of different ids whose rows have equal labels; those of one model raise ConfigError."""
    groups: dict[tuple[Any, ...], dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        groups[_row_labels(cell)][cell.id] = cell
    shared = [list(group.values()) for group in groups.values() if len(group) > 1]
    for group in shared:
        by_model = {cell.model.id: cell for cell in group}
        if len(by_model) < len(group):
            one, other = next(
                (a, b) for a in group for b in group if a.model.id == b.model.id and a.id != b.id
            )
            raise ConfigError(
                f"{_what(one)} is evaluated twice with different settings ({_difference(one, other)}), which one "
                "table would average: give them different experiments (name=...), or leave out one of the two"
            )
    return shared


def _row_labels(cell: Cell) -> tuple[Any, ...]:
    """The labels that the rows of a cell carry, with the seed of the training."""
    task: Task = instantiate(cell.task.build, Task)
    model = cell.model
    named = (task.task, task.variant, task.protocol, cell.length)
    return (*_family(model), model.settings.train.seed, cell.extension.name, *named)


def _family(model: ModelPlan) -> tuple[Any, ...]:
    """The labels of a model that no table or figure averages over: its scheme's and those of SETTING_COLUMNS."""
    settings, train = model.settings, model.settings.train
    tokens = train.steps * train.batch_size * train.seq_len
    return settings.scheme.name, settings.size.name, train.seq_len, tokens, settings.data.name


def _settings(model: ModelPlan) -> dict[str, Any]:
    """The settings that can tell models of one family apart, by their names on the command line."""
    scheme, data = by_name(model.settings.scheme.build), model.settings.data
    train = {key: value for key, value in asdict(model.settings.train).items() if key != "seed"}
    size = {key: value for key, value in asdict(model.settings.size).items() if key != "name"}
    symbols = {"num_keys": data.num_keys, "num_values": data.num_values}
    return {**train, **size, **scheme, **symbols, "corpus": model.corpus}


def differing_labels(models: Sequence[ModelPlan], but: Collection[str] = ()) -> dict[str, str]:
    """Returns labels by model id: the scheme's name and the settings in which models of one scheme differ, without `but`."""
    settings = {model.id: _settings(model) for model in models}
    keys = list(dict.fromkeys(key for one in settings.values() for key in one))
    differ = [
        key for key in keys if key not in but and len({repr(one.get(key)) for one in settings.values()}) > 1
    ]
    return {
        model.id: f"{model.settings.scheme.name} ({', '.join(_setting(key, settings[model.id]) for key in differ)})"
        for model in models
        if differ
    }


def _setting(key: str, settings: dict[str, Any]) -> str:
    """Returns a setting for a label; the class of a scheme stands for itself."""
    value = escaping.printable(str(settings.get(key)))
    return value if key == "_target_" else f"{key} {value}"


def _relabelled(model: ModelPlan, labels: dict[str, str]) -> ModelPlan:
    base = model.fine_tuning.base_model if model.fine_tuning else model
    label = labels.get(base.id)
    if label is None:
        return model
    scheme = replace(model.settings.scheme, name=label)
    return replace(model, settings=replace(model.settings, scheme=scheme))


def _what(cell: Cell) -> str:
    extension = "" if cell.extension.name == "none" else f" + {cell.extension.name}"
    return f"{cell.model.label}{extension}, {cell.task.name} at {cell.length} tokens"


def _difference(one: Cell, other: Cell) -> str:
    """The settings in which two evaluations of one model differ."""
    pairs = [
        *(
            (f"{key}", one.task.build.get(key), other.task.build.get(key))
            for key in {**one.task.build, **other.task.build}
        ),
        ("seed", one.seed, other.seed),
        ("dtype", one.dtype, other.dtype),
        ("extension", one.extension.build, other.extension.build),
    ]
    return ", ".join(f"{key} {a} and {b}" for key, a, b in pairs if a != b)
