"""Checks of names and settings that need no model, so that a mistake is reported before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posbench.commands.source import definition, parts
from posbench.config.checks import check, check_fingerprint
from posbench.config.schema import EvaluateScript, ExtensionSettings, ModelSettings, SweepScript
from posbench.errors import unknown
from posbench.instantiate import check_path
from posbench.sweep import grid
from posbench.sweep.finetune import finetune_settings

# Config group -> how many arguments of a constructor are passed in code, not by settings.
PASSED = {"scheme": 1, "extension": 2, "ensemble": 2, "task": 0}


def check_build(group: str, build: Mapping[str, Any] | None) -> None:
    """Raises ConfigError for a setting that the class does not have, where its source text shows which it has."""
    for index, part in enumerate(parts(build)):
        check_path(part["_target_"])
        found = definition(part["_target_"])
        if found is None or (parameters := found.parameters()) is None:
            continue
        # Inner parts are schemes.
        allowed = list(parameters)[PASSED[group if index == 0 else "scheme"] :]
        for key in part:
            if key not in ("_target_", *allowed):
                raise unknown(f"setting of {found.name}", key, allowed)


def check_model(settings: ModelSettings) -> None:
    """Raises ConfigError for settings of the training or of the scheme that are not possible."""
    check(settings.train)
    check_fingerprint(settings.data)
    check_build("scheme", settings.scheme.build)


def check_extension(extension: ExtensionSettings) -> None:
    """Raises ConfigError for a setting that an extension or ensemble does not have."""
    check_build("extension", extension.build)
    check_build("ensemble", extension.ensemble)


def check_evaluation(script: EvaluateScript) -> ExtensionSettings:
    """Returns the extension around the model, or the ensemble under its own label.

    Raises:
        ConfigError: if both are given, or for a setting that does not exist.
    """
    extension = grid.resolve_ensemble(script.extension, script.ensemble)
    check_model(script)
    check_extension(extension)
    check_build("task", script.task.build)
    return extension


def check_sweep(script: SweepScript, load_option: grid.LoadOption) -> None:
    """Raises ConfigError for a name without a file and for settings that are not possible."""
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
    for name, evaluation in script.evaluate.items():
        build = load_option("task", evaluation.task or name)["build"]
        check_build("task", {**build, **evaluation.settings})
    for settings in grid.models(script, load_option):
        check_model(settings)
        for extension in grid.extensions(script, settings.scheme.name, load_option):
            check_extension(extension)
            if extension.finetune:
                finetune_settings(settings.train, extension.finetune)
