"""From settings to cells: what is to be trained and measured, and what cannot be.

A cell is one task on one model at one length. Its name is a function of everything that its rows depend on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from posbench.build import build
from posbench.data.associative_recall import records_in
from posbench.data.corpus import Corpus, fingerprint, open_corpus
from posbench.errors import ConfigError, IncompatibleError, LengthError, unknown
from posbench.extension import Context
from posbench.identity import identity
from posbench.model.gpt import Size, build_scheme
from posbench.scheme import PositionScheme, Shape
from posbench.settings import (
    EvaluationSettings,
    ExtensionSettings,
    ModelSettings,
    SchemeSettings,
    SizeSettings,
    SweepScript,
    TaskSettings,
    TrainSettings,
)
from posbench.tasks.task import Task
from posbench.train import check

# (group, name) -> the content of that choice's file.
Choose = Callable[[str, str], dict[str, Any]]
NONE = ExtensionSettings()


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """One model to train; `corpus` is the fingerprint of its data, `version` its scheme's."""

    settings: ModelSettings
    corpus: str
    version: int

    @cached_property
    def id(self) -> str:
        """A function of all that its weights depend on; names are labels and not among it."""
        size = {key: value for key, value in asdict(self.settings.size).items() if key != "name"}
        data = [self.corpus, self.settings.data.keys, self.settings.data.values]
        content = [self.settings.scheme.build, self.version, size, data, asdict(self.settings.train)]
        return identity(["model", *content])

    @property
    def label(self) -> str:
        """For people: scheme, size, training length and seed."""
        one = self.settings
        return f"{one.scheme.name}, {one.size.name}, length {one.train.length}, seed {one.train.seed}"


@dataclass(frozen=True, eq=False)
class Cell:
    """One task on one model, extended or not, at one length in tokens."""

    model: ModelPlan
    extension: ExtensionSettings
    extension_version: int
    task: TaskSettings
    task_version: int
    length: int
    seed: int
    dtype: str

    @cached_property
    def id(self) -> str:
        """A function of all that its rows depend on."""
        extension = [self.extension.build, self.extension_version]
        task = [self.task.build, self.task_version]
        where = [self.model.corpus, self.length, self.seed, self.dtype]
        return identity(["cell", self.model.id, extension, task, *where])


@dataclass(frozen=True, eq=False)
class Plan:
    """Models, their cells, and a line for each combination that cannot be."""

    models: list[ModelPlan]
    cells: list[Cell]
    dropped: list[str]


def shape_of(settings: ModelSettings) -> Shape:
    """What the scheme of a model may know of it."""
    size = settings.size
    return Size(size.layers, size.width, size.heads, size.mlp).shape(settings.train.length)


def scheme_of(settings: ModelSettings) -> PositionScheme:
    """The untrained scheme of a model; raises for settings that it does not allow."""
    scheme = build_scheme(settings.scheme.build, shape_of(settings), settings.train.seed)
    if not isinstance(scheme, PositionScheme):
        raise ConfigError(
            f"scheme {settings.scheme.name}: {type(scheme).__name__} is no PositionScheme; derive it from one"
        )
    return scheme


def extended(
    scheme: PositionScheme, extension: ExtensionSettings, settings: ModelSettings, length: int
) -> PositionScheme:
    """The extension around a scheme for an evaluated length, or the scheme itself."""
    if extension.build is None:
        return scheme
    return build(extension.build, scheme, Context(shape_of(settings), length))


def plan_model(settings: ModelSettings) -> ModelPlan:
    """The plan of one model; settings that cannot be are refused here, before anything runs."""
    check(settings.train)
    if settings.train.records and settings.train.asked:
        records_in(settings.train.length, settings.data.keys)
    return ModelPlan(settings, fingerprint(settings.data), scheme_of(settings).version)


def plan_cells(
    model: ModelPlan,
    extension: ExtensionSettings,
    name: str,
    evaluation: EvaluationSettings,
    choose: Choose,
    corpus: Corpus,
) -> Iterator[Cell]:
    """The cells of one evaluation of one model.

    Raises:
        IncompatibleError: if the extension cannot be around the model's scheme.
        LengthError: if a length cannot be had.
    """
    settings = model.settings
    scheme = scheme_of(settings)
    lengths = lengths_of(evaluation, settings.train.length, name)
    task_settings, task = task_of(name, evaluation, choose, max(lengths))
    for length in lengths:
        wrapped = extended(scheme, extension, settings, length)
        stable = wrapped.traits.prefix_stable
        if length not in task.lengths(lengths, stable):
            continue
        # The first prompt shows whether the length can be had, before hours of training.
        next(task.prompts(length, corpus, settings.train.length, evaluation.seed))
        yield Cell(
            model,
            extension,
            0 if extension.build is None else wrapped.version,
            task_settings,
            task.version,
            length,
            evaluation.seed,
            evaluation.dtype,
        )


def task_of(
    name: str, evaluation: EvaluationSettings, choose: Choose, longest: int
) -> tuple[TaskSettings, Task]:
    """The task of an entry; a horizon of "auto" is the longest length of the entry."""
    content = choose("task", evaluation.task or name)
    settings = {**content["build"], **evaluation.settings}
    if settings.get("horizon") == "auto":
        settings["horizon"] = longest
    return TaskSettings(content["name"], settings), build(settings)


def lengths_of(evaluation: EvaluationSettings, train_len: int, name: str) -> list[int]:
    """Lengths in tokens, ascending, from multiples of the training length and from lengths given outright."""
    lengths = set(evaluation.lengths)
    for multiple in evaluation.multiples:
        if multiple * train_len != int(multiple * train_len):
            raise LengthError(
                f"evaluate.{name}: {multiple} times the training length {train_len} is no whole number of "
                "tokens; choose another multiple, or give lengths"
            )
        lengths.add(int(multiple * train_len))
    if not lengths or min(lengths) < 1:
        raise LengthError(
            f"evaluate.{name}: lengths {sorted(lengths)}; give multiples or lengths of 1 token or more"
        )
    return sorted(lengths)


def plan_sweep(script: SweepScript, choose: Choose, cache: Path) -> Plan:
    """Every model of the grid and every cell on it that can be."""
    models: list[ModelPlan] = []
    cells: list[Cell] = []
    dropped: list[str] = []
    for settings in grid(script, choose):
        model = plan_model(settings)
        models.append(model)
        corpus = open_corpus(settings.data, cache)
        for extension in [NONE, *extensions(script, settings.scheme.name, choose)]:
            for name, evaluation in script.evaluate.items():
                if extension is not NONE and not evaluation.extensions:
                    continue
                try:
                    cells += plan_cells(model, extension, name, evaluation, choose, corpus)
                except IncompatibleError as error:
                    dropped.append(f"{settings.scheme.name} + {extension.name}: {error}")
                    break
    return Plan(models, cells, list(dict.fromkeys(dropped)))


def grid(script: SweepScript, choose: Choose) -> Iterator[ModelSettings]:
    """The models of a sweep, schemes outermost."""
    axes = script.grid
    if not axes.scheme or not axes.seed:
        raise ConfigError(
            "the grid has no scheme or no seed: give grid.scheme=[rope,alibi] and grid.seed=[0]"
        )
    known = [one.name for one in fields(TrainSettings)]
    for key, values in axes.train.items():
        if key not in known:
            raise unknown("setting", f"grid.train.{key}", [f"grid.train.{one}" for one in known])
        if not isinstance(values, list):
            raise ConfigError(f"grid.train.{key} is {values!r}: give a list of values")
    sizes = [SizeSettings(**choose("size", name)) for name in axes.size] or [script.size]
    schemes = [adjusted("scheme", name, script.adjust.scheme, choose) for name in axes.scheme]
    for scheme, size, *values, seed in itertools.product(schemes, sizes, *axes.train.values(), axes.seed):
        train = replace(script.train, seed=seed, **dict(zip(axes.train, values, strict=True)))
        yield ModelSettings(SchemeSettings(**scheme), size, script.data, train)


def extensions(script: SweepScript, scheme: str, choose: Choose) -> list[ExtensionSettings]:
    """The extensions that a scheme of the grid gets."""
    axes = script.grid
    if axes.extend and scheme not in axes.extend:
        return []
    names = [name for name in axes.extension if name != NONE.name]
    return [
        ExtensionSettings(**adjusted("extension", name, script.adjust.extension, choose)) for name in names
    ]


def adjusted(group: str, name: str, changes: dict[str, Any], choose: Choose) -> dict[str, Any]:
    """A choice with the experiment's own settings in place of those in its file."""
    content = choose(group, name)
    if changes.get(name):
        content = {**content, "build": {**content["build"], **changes[name]}}
    return content
