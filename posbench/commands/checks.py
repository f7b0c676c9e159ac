"""Checks of names and settings that need no model, so that a mistake is reported before torch is imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from posbench.commands.source import definition, parts
from posbench.config.checks import check, check_fingerprint, check_launcher
from posbench.config.extension import ON_LAYERS
from posbench.config.schema import EvaluateScript, ExtensionSettings, ModelSettings, SweepScript, TrainScript
from posbench.config.search import SearchScript
from posbench.config.validation import check_command, is_given
from posbench.errors import ConfigError, unknown
from posbench.instantiate import admits, check_path, describe_type
from posbench.plan import feasibility, grid
from posbench.plan.finetune import finetune_settings

# Config group -> how many arguments of a constructor are passed in code, not by settings.
PASSED = {"scheme": 1, "extension": 2, "ensemble": 2, "task": 0}
AUTO = "auto"


def check_build(group: str, build: Mapping[str, Any] | None) -> None:
    """Raises ConfigError for a setting that a class does not have, lacks, or has with another type.

    The class is read from its source text; what the source does not show is checked when the object is created.
    """
    # Inner parts are schemes, but for the extension inside OnLayers.
    outer = 2 if build and build.get("_target_") == ON_LAYERS else 1
    for index, part in enumerate(parts(build)):
        check_path(part["_target_"])
        found = definition(part["_target_"])
        if found is None or (parameters := found.parameters()) is None:
            continue
        allowed = list(parameters)[PASSED[group if index < outer else "scheme"] :]
        annotations = found.annotations()
        given = {key: value for key, value in part.items() if key != "_target_"}
        for key, value in given.items():
            if key not in allowed:
                raise unknown(f"setting of {found.name}", key, allowed)
            if (key, value) != ("max_context", AUTO) and not admits(annotations[key], value):
                raise ConfigError(
                    f"setting {key} of {found.name} is {value!r}: give {describe_type(annotations[key])}"
                )
        for key in allowed:
            if parameters[key] is None and key not in given:
                raise ConfigError(f"{found.name} has no {key}: add this setting to its file")


def check_model(settings: ModelSettings) -> float:
    """Raises ConfigError for settings of training or of the scheme that cannot be; returns the operations."""
    check(settings.train)
    check_fingerprint(settings.data)
    check_build("scheme", settings.scheme.build)
    return feasibility.training_flops(settings, settings.train)


def check_train(settings: TrainScript, given: Collection[str]) -> None:
    """Raises ConfigError for a training that cannot be, or that takes many years."""
    check_launcher(settings.runtime)
    check_command(settings.runtime, "runtime.", given, "train")
    feasibility.use_machines_of(settings.runtime)
    feasibility.check_flops(check_model(settings), "give fewer train.steps, or a smaller size or batch")


def check_lm(script: EvaluateScript | SearchScript, given: Collection[str]) -> None:
    """Raises ConfigError for a setting of a trained model beside a pretrained one, which has its own."""
    own = ["scheme", "size", "train", "data.bos"]
    own += ["data.tokenizer"] if script.data.tokenizer.kind != "hugging_face" else []
    for key in own:
        if script.lm.kind != "native" and is_given(key, given):
            raise ConfigError(
                f"{key} changes nothing with lm.kind {script.lm.kind}, whose model has its own: remove it, or give lm=native"
            )


def check_extension(extension: ExtensionSettings) -> None:
    """Raises ConfigError for a setting that an extension or ensemble does not have."""
    check_build("extension", extension.build)
    check_build("ensemble", extension.ensemble)


def check_label(extension: ExtensionSettings) -> None:
    """Raises ConfigError for the plain model under the label of an extension, and for a fine-tuned one without a label."""
    if extension.build is not None or extension.ensemble is not None:
        return
    tuned = bool(extension.finetune.get("steps"))
    if tuned and extension.name == "none":
        raise ConfigError(
            "extension.finetune without an extension: give the fine-tuned model an extension.name"
        )
    if not tuned and extension.name != "none":
        raise ConfigError(
            f"extension.name {extension.name} without an extension: choose one, such as extension=pi"
        )


def check_evaluation(script: EvaluateScript, given: Collection[str]) -> ExtensionSettings:
    """Returns the extension around the model, or the ensemble under its own label.

    Args:
        given: keys on the command line.

    Raises:
        ConfigError: if both are given, or for a setting that does not exist.
    """
    if script.evaluation.task or not script.evaluation.include_extensions:
        raise ConfigError(
            "evaluation.task and evaluation.include_extensions change nothing here, they are for sweeps: give task=NAME "
            "and extension=NAME"
        )
    check_launcher(script.runtime)
    check_lm(script, given)
    feasibility.use_machines_of(script.runtime)
    if script.ensemble.build is None and script.ensemble.name != "none":
        raise ConfigError(
            f"ensemble.name {script.ensemble.name} without an ensemble: choose one, such as ensemble=nbce"
        )
    extension = grid.resolve_ensemble(script.extension, script.ensemble)
    check_label(extension)
    parts = ["train"] if extension.finetune else []
    check_command(script.runtime, "runtime.", given, "evaluate", *parts)
    check_model(script)
    check_extension(extension)
    task = {**script.task.build, **script.evaluation.settings}
    check_build("task", task)
    flops = feasibility.evaluation_flops(script, script.task.name, task, script.evaluation)
    feasibility.check_flops(flops, "give fewer examples or shorter lengths")
    return extension


def check_sweep(script: SweepScript, load_option: grid.LoadOption, given: Collection[str] = ()) -> None:
    """Raises ConfigError for a name without a file and for settings that are not possible.

    Args:
        given: keys on the command line. A setting without an effect is an error there, but not in the file of an
            experiment, whose grid the command line can replace.
    """
    check_launcher(script.runtime)
    feasibility.use_machines_of(script.runtime)
    check_command(script.runtime, "runtime.", given, "sweep")
    axes, overrides = script.grid, script.overrides
    named = {
        "figure": script.figures,
        "scheme": [*axes.extended_schemes, *overrides.scheme],
        "extension": [*axes.extension, *overrides.extension],
        "ensemble": [*axes.ensemble, *overrides.ensemble],
    }
    for group, names in named.items():
        for name in names:
            load_option(group, name)
    for name in script.figures:
        check_path(load_option("figure", name).get("draw"), "draw")
    if not script.evaluate:
        raise ConfigError(
            "evaluate is empty, so there is nothing to tabulate: give +evaluate.fixed_targets.length_multiples=[1,2], or "
            "train without evaluation by posbench train"
        )
    tasks = {}
    for name, evaluation in script.evaluate.items():
        build = load_option("task", evaluation.task or name)["build"]
        tasks[name] = {**build, **evaluation.settings}
        check_build("task", tasks[name])
    flops = 0.0
    for settings in grid.models(script, load_option):
        flops += check_model(settings)
        extensions = grid.extensions(script, settings.scheme.name, load_option)
        for extension in extensions:
            check_extension(extension)
            if extension.finetune and (train := finetune_settings(settings.train, extension)):
                flops += feasibility.training_flops(settings, train)
        for name, evaluation in script.evaluate.items():
            repeats = 1 + len(extensions) * evaluation.include_extensions
            flops += repeats * feasibility.evaluation_flops(settings, name, tasks[name], evaluation)
    feasibility.check_flops(flops, "give fewer train.steps, examples or models, or shorter lengths")
    check_effect(script, given)


def check_effect(script: SweepScript, given: Collection[str]) -> None:
    """Raises ConfigError for settings on the command line that would change nothing."""
    axes = script.grid
    check_replaced(script, given)
    entries = [
        entry.extension or name for name, entry in [*script.variants.items(), *script.finetune.items()]
    ]
    used = {
        "scheme": axes.scheme,
        "extension": [*axes.extension, *entries],
        "ensemble": axes.ensemble,
    }
    for group, names in used.items():
        for name in getattr(script.overrides, group):
            if name not in names and is_touched(f"overrides.{group}.{name}", given):
                raise ConfigError(
                    f"overrides.{group}.{name} changes nothing, because grid.{group} is [{', '.join(names)}]: add "
                    f"{name} to it, or remove the override"
                )
    if is_touched("grid.extended_schemes", given):
        for name in axes.extended_schemes:
            if name not in axes.scheme:
                raise unknown("scheme in grid.extended_schemes, not one of grid.scheme:", name, axes.scheme)
    for key, values in {
        "grid.extension": axes.extension,
        "grid.ensemble": axes.ensemble,
        "variants": script.variants,
        "finetune": script.finetune,
    }.items():
        if not values or not is_touched(key, given):
            continue
        if axes.extended_schemes and set(axes.extended_schemes).isdisjoint(axes.scheme):
            raise ConfigError(
                f"{key} changes nothing, because grid.extended_schemes [{', '.join(axes.extended_schemes)}] has none of "
                f"grid.scheme [{', '.join(axes.scheme)}]: give grid.extended_schemes=[]"
            )
        if not any(evaluation.include_extensions for evaluation in script.evaluate.values()):
            raise ConfigError(
                f"{key} changes nothing, because every evaluation has include_extensions=false: set it to true"
            )


def check_replaced(script: SweepScript, given: Collection[str]) -> None:
    """Raises ConfigError for a setting in whose place the grid has values."""
    axes = script.grid
    replaced = {f"train.{name}": f"grid.train.{name}" for name in axes.train} | {"train.seed": "grid.seed"}
    if axes.size:
        replaced["size"] = "grid.size"
    if axes.lr and "muon" not in axes.train.get("optimizer", [script.train.optimizer]):
        replaced["train.lr"] = "grid.lr"
    for key, axis in replaced.items():
        if is_given(key, given) or (key == "train.seed" and script.train.seed):
            raise ConfigError(f"{key} changes nothing, because {axis} has values in its place: give {axis}")


def is_touched(key: str, given: Collection[str]) -> bool:
    """Returns whether a key, one above or one below it is among the keys of the command line."""
    return is_given(key, given) or any(key.startswith(f"{one}.") for one in given)
