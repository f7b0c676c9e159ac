"""From settings to cells: what is to be trained and measured, and what cannot be.

A cell is one task on one model at one length. Its name is a function of everything that its rows depend on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from posbench.config.checks import check
from posbench.config.schema import (
    EvaluationSettings,
    ExtensionSettings,
    ModelSettings,
    SweepScript,
    TaskSettings,
    TrainSettings,
)
from posbench.data.batches import check_synthetic
from posbench.data.corpus import Corpus, check_corpus, fingerprint, open_corpus
from posbench.errors import ConfigError, IncompatibleError, LengthError, UndefinedError
from posbench.identity import content, identity
from posbench.instantiate import build
from posbench.lm.pretrained import Pretrained
from posbench.model.gpt import Size, build_scheme
from posbench.position.extension import Context
from posbench.position.scheme import PositionScheme, Shape
from posbench.sweep import grid
from posbench.sweep.finetune import reach, tuned
from posbench.sweep.grid import NONE, Choose
from posbench.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Tuning:
    """How a model was made from its parent: trained on with an extension in place."""

    parent: ModelPlan
    extension: ExtensionSettings
    extension_version: int
    train: TrainSettings


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """One model to train; `corpus` is the fingerprint of its data, `version` its scheme's.

    A pretrained one is not trained here: its settings describe it, a training length of its own among them.
    A fine-tuned model has the settings of its parent: the scheme knows the length that it was pretrained with.
    """

    settings: ModelSettings
    corpus: str
    version: int
    tuning: Tuning | None = None
    pretrained: Pretrained | None = None

    @property
    def train(self) -> TrainSettings:
        """Of its own training, which for a fine-tuned model is the last one."""
        return self.tuning.train if self.tuning else self.settings.train

    @cached_property
    def id(self) -> str:
        """A function of all that its weights depend on; names are labels and not among it."""
        one, symbols = self.settings, [self.settings.data.keys, self.settings.data.values]
        if self.pretrained:
            return identity(["pretrained", self.pretrained.id, one.scheme.build, self.version, *symbols])
        if self.tuning:
            extension = [self.tuning.extension.build, self.tuning.extension_version]
            return identity(["finetuned", self.tuning.parent.id, extension, content(self.train)])
        size = {key: value for key, value in content(self.settings.size).items() if key != "name"}
        data = [self.corpus, *symbols]
        return identity(["model", one.scheme.build, self.version, size, data, content(one.train)])

    @property
    def label(self) -> str:
        """For people: scheme, size, training length and seed, and what it was trained on with."""
        one = self.settings
        if self.pretrained:
            return f"{self.pretrained.described}, length {one.train.length}"
        plain = f"{one.scheme.name}, {one.size.name}, length {one.train.length}, seed {one.train.seed}"
        if self.tuning is None:
            return plain
        return (
            f"{plain} + {self.tuning.extension.name} ({self.train.steps} steps at length {self.train.length})"
        )


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
        extension = [self.extension.ensemble or self.extension.build, self.extension_version]
        task = [self.task.build, self.task_version]
        where = [self.model.corpus, self.length, self.seed, self.dtype]
        return identity(["cell", self.model.id, extension, task, *where])


@dataclass(frozen=True, eq=False)
class Plan:
    """Models, their cells, and a line for each combination that cannot be."""

    models: list[ModelPlan]
    cells: list[Cell]
    dropped: list[str]

    @cached_property
    def every_model(self) -> list[ModelPlan]:
        """Those that were asked for and those that are fine-tuned from them, parents first."""
        return list({one.id: one for one in [*self.models, *(cell.model for cell in self.cells)]}.values())


def shape_of(settings: ModelSettings) -> Shape:
    """What the scheme of a model may know of it."""
    size = settings.size
    return Size(size.layers, size.width, size.heads, size.mlp, size.head_dim).shape(settings.train.length)


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
    length = reach(length, extension.finetune)
    return build(extension.build, scheme, Context(shape_of(settings), length))


def plan_model(settings: ModelSettings) -> ModelPlan:
    """The plan of one model; settings that cannot be are refused here, before anything runs."""
    check(settings.train)
    check_sequences(settings.train, settings.data.keys)
    return ModelPlan(settings, fingerprint(settings.data), scheme_of(settings).version)


def check_sequences(train: TrainSettings, keys: int) -> None:
    """Raise for synthetic sequences that a training could not have."""
    if train.records:
        check_synthetic(train.synthetic, train.length, keys, train.asked)


def plan_tuning(model: ModelPlan, extension: ExtensionSettings, corpus: Corpus) -> ModelPlan:
    """The plan of the model that was trained on with the extension; the model itself where it is not.

    Raises:
        IncompatibleError: if the model cannot be trained at the length with the extension.
    """
    if not extension.finetune:
        return model
    train = tuned(model.settings.train, extension.finetune)
    if train is None:
        return model
    scheme = extended(scheme_of(model.settings), extension, model.settings, train.length)
    try:
        scheme.check(train.length)
    except (LengthError, UndefinedError) as error:
        raise IncompatibleError(f"fine-tuning at length {train.length}: {error}") from None
    check_corpus(corpus, train.length)
    check_sequences(train, model.settings.data.keys)
    version = 0 if extension.build is None else scheme.version
    return replace(model, tuning=Tuning(model, extension, version, train))


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
    extension = model.pretrained.extended_by(extension) if model.pretrained else extension
    model = plan_tuning(model, extension, corpus)
    asked = lengths_of(evaluation, settings.train.length, name)
    task_settings, task = task_of(name, evaluation, choose, max(asked, default=0))
    if not model.pretrained and task.trained_on not in ("", settings.train.synthetic):
        return
    lengths = sorted(set(task.own_lengths(corpus))) or asked
    if not lengths or min(lengths) < 1:
        raise LengthError(f"evaluate.{name}: lengths {lengths}; give multiples or lengths of 1 token or more")
    around = {length: extended(scheme, extension, settings, length) for length in lengths}
    # An ensemble reads no more at once than the training length, and its answers for a prefix are others.
    ensemble = None if extension.ensemble is None else build(extension.ensemble, None, None)
    if ensemble is not None and not hasattr(ensemble, task.asks):
        return  # such as weights of attention, of which it has none of its own
    if ensemble is not None and model.pretrained and model.pretrained.architecture is None:
        raise IncompatibleError(
            f"{extension.name} needs whole distributions, which a black box does not tell: convert the model"
        )
    most = max(lengths) if ensemble is None else settings.train.length
    defined = [length for length in lengths if is_defined(around[length], min(length, most))]
    for length, wrapped in around.items():
        # A length that is undefined is a row too; of the others a task may need the longest alone.
        stable = wrapped.traits.prefix_stable and ensemble is None
        if length in defined and length not in task.lengths(defined, stable):
            continue
        # The first prompt shows whether the length can be had, before hours of training.
        next(task.prompts(length, corpus, settings.train.length, evaluation.seed))
        version = 0 if extension.build is None else wrapped.version
        version = version if ensemble is None else ensemble.version
        yield Cell(
            model,
            extension,
            version,
            task_settings,
            task.version,
            length,
            evaluation.seed,
            evaluation.dtype,
        )


def is_defined(scheme: PositionScheme, length: int) -> bool:
    """Whether a scheme has an answer at a length by its definition; what its settings do not allow is an error."""
    try:
        scheme.check(length)
    except UndefinedError:
        return False
    return True


def task_of(
    name: str, evaluation: EvaluationSettings, choose: Choose, longest: int
) -> tuple[TaskSettings, Task]:
    """The task of an entry; a horizon of "auto" is the longest length of the entry."""
    content = choose("task", evaluation.task or name)
    settings = {**content["build"], **evaluation.settings}
    if settings.get("horizon") == "auto":
        if longest < 1:
            raise LengthError(f"evaluate.{name}: no lengths; give multiples or lengths of 1 token or more")
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
    return sorted(lengths)


def plan_sweep(script: SweepScript, choose: Choose, cache: Path) -> Plan:
    """Every model of the grid and every cell on it that can be."""
    models: list[ModelPlan] = []
    cells: list[Cell] = []
    dropped: list[str] = []
    for settings in grid.models(script, choose):
        model = plan_model(settings)
        models.append(model)
        corpus = open_corpus(settings.data, cache)
        for extension in [NONE, *grid.extensions(script, settings.scheme.name, choose)]:
            for name, evaluation in script.evaluate.items():
                if extension is not NONE and not evaluation.extensions:
                    continue
                try:
                    cells += plan_cells(model, extension, name, evaluation, choose, corpus)
                except IncompatibleError as error:
                    dropped.append(f"{settings.scheme.name} + {extension.name}: {error}")
                    break
    return Plan(models, cells, list(dict.fromkeys(dropped)))
