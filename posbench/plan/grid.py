"""Expands a grid into settings: the models of a sweep, and the extensions of each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from posbench.config.schema import (
    EnsembleSettings,
    ExtensionSettings,
    ModelSettings,
    SchemeSettings,
    SizeSettings,
    SweepScript,
)
from posbench.errors import ConfigError

# (group, name) -> the content of configs/<group>/<name>.yaml.
LoadOption = Callable[[str, str], dict[str, Any]]
NONE = ExtensionSettings()


def models(script: SweepScript, load_option: LoadOption) -> Iterator[ModelSettings]:
    """Yields the settings of the models of a sweep; the scheme varies slowest."""
    axes = script.grid
    if not axes.scheme or not axes.seed:
        raise ConfigError(
            "the grid has no scheme or no seed: give grid.scheme=[rope,alibi] and grid.seed=[0]"
        )
    if "seed" in axes.train:
        raise ConfigError("grid.train.seed: give the seeds as grid.seed")
    sizes = [SizeSettings(**load_option("size", name)) for name in axes.size] or [script.size]
    schemes = [with_overrides("scheme", name, script.overrides.scheme, load_option) for name in axes.scheme]
    if axes.lr and axes.train.keys() & {"lr", "muon_lr"}:
        raise ConfigError(
            "grid.lr and grid.train.lr: the first selects a rate, the second compares rates; give one of the two"
        )
    rates = axes.lr or [script.train.lr]
    for scheme, size, *values, rate, seed in itertools.product(
        schemes, sizes, *axes.train.values(), rates, axes.seed
    ):
        train = replace(script.train, seed=seed, **dict(zip(axes.train, values, strict=True)))
        if axes.lr and rate != train.lr:  # with muon_lr in proportion, if it is used
            muon_lr = train.muon_lr * rate / train.lr if train.optimizer == "muon" else train.muon_lr
            train = replace(train, lr=rate, muon_lr=muon_lr)
        yield ModelSettings(SchemeSettings(**scheme), size, script.data, train)


def extensions(script: SweepScript, scheme: str, load_option: LoadOption) -> list[ExtensionSettings]:
    """Returns the extensions to evaluate a scheme of the grid with; those with fine-tuning come last.

    Args:
        scheme: its label, which may differ from the name of its file.
    """
    axes = script.grid
    extended = [load_option("scheme", name)["name"] for name in axes.extended_schemes]
    if extended and scheme not in extended:
        return []
    found = [
        ExtensionSettings(**with_overrides("extension", name, script.overrides.extension, load_option))
        for name in axes.extension
        if name != NONE.name
    ]
    for name in axes.ensemble:
        ensemble = EnsembleSettings(
            **with_overrides("ensemble", name, script.overrides.ensemble, load_option)
        )
        if ensemble.name in [extension.name for extension in found]:
            raise ConfigError(
                f"grid.ensemble: grid.extension has a {ensemble.name} as well; rename one of the two"
            )
        if ensemble.build is not None:
            found.append(resolve_ensemble(NONE, ensemble))
    taken = [NONE.name, *(extension.name for extension in found)]
    for group, name, entry in [
        *(("variants", *item) for item in script.variants.items()),
        *(("finetune", *item) for item in script.finetune.items()),
    ]:
        if name in taken:
            raise ConfigError(
                f"{group}.{name}: another extension, ensemble or entry has this name; choose another"
            )
        taken.append(name)
        content = with_overrides(
            "extension", entry.extension or name, script.overrides.extension, load_option
        )
        own = dict(entry.settings)
        layers = own.pop("layers", content.get("layers", "all"))  # of the extension, not of its class
        if content["build"] is None and (own or group == "variants"):
            raise ConfigError(
                f"{group}.{name}: extension {NONE.name} has no settings to change; choose another one"
            )
        if own:
            content["build"] = {**content["build"], **own}
        train = {**content.get("finetune", {}), **getattr(entry, "train", {})}
        if group == "finetune" and not train:
            raise ConfigError(
                f"finetune.{name} without train: give steps, seq_len and other settings that differ"
            )
        made = ExtensionSettings(name, content["build"], finetune=train, layers=layers)
        found.append(replace(made, name=name))  # without the layers
    return found


def resolve_ensemble(extension: ExtensionSettings, ensemble: EnsembleSettings) -> ExtensionSettings:
    """Returns the extension, or an extension that stands for the ensemble if there is one; both are an error."""
    if ensemble.build is None:
        return extension
    if extension.finetune:
        raise ConfigError(
            f"extension.finetune with ensemble={ensemble.name}: an ensemble is not fine-tuned, remove it"
        )
    if extension.name != NONE.name:
        raise ConfigError(
            f"extension={extension.name} with ensemble={ensemble.name}: an ensemble reads at most the training "
            "length at once, where extensions change little; choose one of the two"
        )
    return ExtensionSettings(ensemble.name, ensemble=ensemble.build)


def with_overrides(
    group: str, name: str, overrides: dict[str, Any], load_option: LoadOption
) -> dict[str, Any]:
    """Loads an option, with the overrides of the experiment in place of the settings in its file."""
    content = load_option(group, name)
    if name in overrides:
        if not isinstance(overrides[name], Mapping) or not overrides[name] or content["build"] is None:
            raise ConfigError(
                f"overrides.{group}.{name} is {overrides[name]!r}: give settings of {name} and their values, or remove it"
            )
        own = dict(overrides[name])
        if "layers" in own and group == "extension":  # of the extension, not of its class
            content = {**content, "layers": own.pop("layers")}
        content = {**content, "build": {**content["build"], **own}}
    return content
