"""Plans a sweep: the models to train and the cells to measure, from settings.

Settings that are not possible are rejected here, before anything runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from posbench.config.checks import check
from posbench.config.data import DataSettings
from posbench.config.lengths import tokens_at
from posbench.config.schema import (
    EvaluationSettings,
    ExtensionSettings,
    ModelSettings,
    SweepScript,
    TaskSettings,
    TrainSettings,
)
from posbench.data.corpus import Corpus, check_corpus, fingerprint, open_corpus
from posbench.data.synthetic import check_synthetic_task
from posbench.errors import ConfigError, IncompatibleError, LengthError, TaskMismatchError, UndefinedError
from posbench.instantiate import instantiate, locate
from posbench.lm.chunks import ChunkEnsemble
from posbench.model.gpt import Size, build_scheme
from posbench.plan import feasibility, grid
from posbench.plan.cell import Cell, FineTuning, ModelPlan, Plan
from posbench.plan.finetune import extension_length, finetune_settings
from posbench.plan.grid import NONE, LoadOption
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import ModelShape, PositionScheme
from posbench.tasks.task import Task

GIVE_LENGTHS = "give length_multiples or lengths of 1 token or more"


def model_shape(settings: ModelSettings) -> ModelShape:
    """Returns the shape of a model, which is all that its scheme depends on."""
    size = settings.size
    return Size(size.n_layers, size.d_model, size.n_heads, size.mlp_ratio, size.head_dim).shape(
        settings.train.seq_len
    )


def build_untrained_scheme(settings: ModelSettings) -> PositionScheme:
    """Creates the untrained scheme of a model; raises for settings that it does not allow."""
    if largest_integer(settings.scheme.build) > 10**6:
        check_scheme_bytes(settings)
    return build_scheme(settings.scheme.build, model_shape(settings), settings.train.seed)


def largest_integer(settings: Any) -> int:
    """Returns the largest whole number in nested settings."""
    if isinstance(settings, Mapping):
        settings = list(settings.values())
    if isinstance(settings, list):
        return max(map(largest_integer, settings), default=0)
    return settings if isinstance(settings, int) else 0


def check_scheme_bytes(settings: ModelSettings) -> None:
    """Raises ConfigError for a scheme whose parameters cannot fit in memory, which it is created without."""
    try:
        with torch.device("meta"):
            scheme = build_scheme(settings.scheme.build, model_shape(settings), settings.train.seed)
    except (NotImplementedError, RuntimeError):  # a scheme whose parameters depend on computed values
        return
    count = sum(parameter.numel() for parameter in [*scheme.parameters(), *scheme.buffers()])
    feasibility.check_bytes(
        f"scheme {settings.scheme.name}", feasibility.PARAMETER_BYTES * count, "give smaller settings"
    )


def apply_extension(
    scheme: PositionScheme, extension: ExtensionSettings, settings: ModelSettings, length: int
) -> PositionScheme:
    """Returns the scheme with the extension for an evaluated length in tokens, or the scheme itself without one."""
    if extension.build is None:
        return scheme
    length = extension_length(length, extension.finetune)
    return instantiate(extension.build, Extension, scheme, ExtensionContext(model_shape(settings), length))


def plan_model(settings: ModelSettings) -> ModelPlan:
    """Plans one model; raises PosbenchError for settings that are not possible."""
    check(settings.train)
    check_sequences(settings.train, settings.data)
    return ModelPlan(settings, fingerprint(settings.data), build_untrained_scheme(settings).version)


def check_sequences(train: TrainSettings, data: DataSettings) -> None:
    """Raises ConfigError or LengthError for synthetic sequences that are not possible."""
    if train.synthetic_fraction:
        check_synthetic_task(
            train.synthetic_task, train.seq_len, data.num_keys, data.num_values, train.query_fraction
        )


def plan_finetuning(model: ModelPlan, extension: ExtensionSettings, corpus: Corpus) -> ModelPlan:
    """Plans the fine-tuning of a model with an extension; returns the model itself if the extension has none.

    Raises:
        IncompatibleError: if the scheme with the extension is not defined at the length of the fine-tuning.
    """
    if not extension.finetune:
        return model
    train = finetune_settings(model.settings.train, extension)
    if train is None:
        return model
    scheme = apply_extension(build_untrained_scheme(model.settings), extension, model.settings, train.seq_len)
    try:
        scheme.check(train.seq_len)
    except (LengthError, UndefinedError) as error:
        raise IncompatibleError(f"fine-tuning at length {train.seq_len}: {error}") from None
    check_corpus(corpus, train.seq_len)
    check_sequences(train, model.settings.data)
    version = 0 if extension.build is None else scheme.version
    return replace(model, fine_tuning=FineTuning(model, extension, version, train))


def plan_cells(
    model: ModelPlan,
    extension: ExtensionSettings,
    key: str,
    evaluation: EvaluationSettings,
    load_option: LoadOption,
    corpus: Corpus,
) -> Iterator[Cell]:
    """Yields the cells of one evaluation of one model.

    Args:
        key: of the evaluation in the settings, such as evaluate.fixed_targets.

    Raises:
        IncompatibleError: if the scheme of the model does not support the extension.
        TaskMismatchError: if the model or the ensemble cannot do the task.
        LengthError: if the task or the corpus does not allow a length.
    """
    settings = model.settings
    scheme = build_untrained_scheme(settings)
    extension = model.pretrained.resolve_extension(extension) if model.pretrained else extension
    model = plan_finetuning(model, extension, corpus)
    requested_lengths = evaluated_lengths(evaluation, settings.train.seq_len, key)
    task_settings, task = build_task(key, evaluation, load_option, max(requested_lengths, default=0))
    trained_on, needed = model.train.synthetic_task, task.required_synthetic_task
    if not model.pretrained and needed not in ("", trained_on):
        raise TaskMismatchError(
            f"task {task_settings.name} needs a model of train.synthetic_task={needed}, and {model.label} was trained on "
            f"{trained_on}: train with train.synthetic_task={needed}, or choose another task"
        )
    fixed = sorted(set(task.fixed_lengths(corpus)))
    if fixed and requested_lengths:
        raise LengthError(
            f"{key}: lengths and length_multiples change nothing, because the settings of task {task_settings.name} "
            f"give {', '.join(map(str, fixed))} tokens: remove them"
        )
    lengths = fixed or requested_lengths
    if not lengths or min(lengths) < 1:
        raise LengthError(f"{key}: lengths {lengths}; {GIVE_LENGTHS}")
    scheme_by_length = {length: apply_extension(scheme, extension, settings, length) for length in lengths}
    # An ensemble reads at most the training length at once, and its result for a prefix is not a part of that for
    # the whole text.
    ensemble = (
        None if extension.ensemble is None else instantiate(extension.ensemble, ChunkEnsemble, None, None)
    )
    if ensemble is not None and not (task.supports_ensembles and hasattr(ensemble, task.output_type)):
        raise TaskMismatchError(
            f"{extension.name} cannot answer task {task_settings.name}: choose another task, or ensemble=none"
        )
    if ensemble is not None and model.pretrained and model.pretrained.architecture is None:
        raise IncompatibleError(
            f"{extension.name} needs whole distributions, which a black box does not give: use a model that is converted"
        )
    max_len = max(lengths) if ensemble is None else settings.train.seq_len
    defined = [length for length in lengths if is_defined(scheme_by_length[length], min(length, max_len))]
    for length, extended_scheme in scheme_by_length.items():
        # An undefined length becomes a row too. Of the defined lengths, some tasks need only the longest.
        stable = extended_scheme.traits.prefix_stable and ensemble is None
        if length in defined and length not in task.lengths_to_run(defined, stable, settings.train.seq_len):
            continue
        # A prompt raises if the length is not possible, before hours of training.
        prompts = task.prompts(length, corpus, settings.train.seq_len, evaluation.seed)
        next(prompts)
        if task.check_all_prompts:
            deque(prompts, maxlen=0)
        version = 0 if extension.build is None else extended_scheme.version
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


def check_cells(
    model: ModelPlan,
    extension: ExtensionSettings,
    key: str,
    evaluation: EvaluationSettings,
    load_option: LoadOption,
) -> None:
    """Raises PosbenchError for an extension, a task or lengths that neither weights nor a corpus make possible.

    Args:
        key: as in `plan_cells`.
    """
    settings = model.settings
    lengths = evaluated_lengths(evaluation, settings.train.seq_len, key)
    _, task = build_task(key, evaluation, load_option, max(lengths, default=0))
    if not lengths and type(task).fixed_lengths is Task.fixed_lengths:
        raise LengthError(f"{key}: no lengths; {GIVE_LENGTHS}")
    scheme = build_untrained_scheme(settings)
    for length in lengths or [settings.train.seq_len]:
        apply_extension(scheme, extension, settings, length)


def is_defined(scheme: PositionScheme, length: int) -> bool:
    """Returns whether a scheme is defined at a length in tokens; raises if its settings do not allow the length."""
    try:
        scheme.check(length)
    except UndefinedError:
        return False
    return True


def build_task(
    key: str, evaluation: EvaluationSettings, load_option: LoadOption, max_length: int
) -> tuple[TaskSettings, Task]:
    """Creates the task of an evaluation; max_context "auto" becomes a multiple of `max_length`, in tokens."""
    content = load_option("task", evaluation.task or key.rpartition(".")[2])
    settings = {**content["build"], **evaluation.settings}
    if settings.get("max_context") == "auto":
        if max_length < 1:
            raise LengthError(f"{key}: no lengths; {GIVE_LENGTHS}")
        multiple = getattr(locate(settings["_target_"]), "max_context_multiple", 1)
        settings["max_context"] = multiple * max_length
    return TaskSettings(content["name"], settings), instantiate(settings, Task)


def evaluated_lengths(evaluation: EvaluationSettings, train_len: int, key: str) -> list[int]:
    """Returns the lengths of an evaluation in tokens, ascending."""
    lengths = set(evaluation.lengths)
    for multiple in evaluation.length_multiples:
        length = tokens_at(multiple, train_len)
        if not length.is_integer():
            raise LengthError(
                f"{key}: {multiple} times the training length {train_len} is not a whole number of "
                "tokens; choose another multiple, or give lengths"
            )
        lengths.add(int(length))
    return sorted(lengths)


def plan_sweep(script: SweepScript, load_option: LoadOption, cache: Path) -> Plan:
    """Plans every model of a grid and every possible cell on it.

    Raises:
        ConfigError: if no model of the grid can do any of the evaluations.
    """
    models: list[ModelPlan] = []
    cells: list[Cell] = []
    skipped: list[str] = []
    mismatches: dict[str, str] = {}
    measured: set[str] = set()
    for settings in grid.models(script, load_option):
        model = plan_model(settings)
        models.append(model)
        corpus = open_corpus(settings.data, cache)
        for extension in [NONE, *grid.extensions(script, settings.scheme.name, load_option)]:
            for name, evaluation in script.evaluate.items():
                if extension is not NONE and not evaluation.include_extensions:
                    continue
                key = f"evaluate.{name}"
                try:
                    cells += list(plan_cells(model, extension, key, evaluation, load_option, corpus))
                    measured.add(key)
                except TaskMismatchError as error:  # usual in a grid of several synthetic tasks
                    mismatches.setdefault(key, str(error))
                except IncompatibleError as error:
                    what = key if extension is NONE else f"{settings.scheme.name} + {extension.name}"
                    skipped.append(f"{what}: {error}")
    if left := [key for key in mismatches if key not in measured]:
        skipped.append(f"{', '.join(left)}: {mismatches[left[0]]}")
    if skipped and not cells:
        raise ConfigError(f"nothing can be measured: {skipped[0]}; change the grid or the evaluations")
    return Plan(models, cells, list(dict.fromkeys(skipped)))
