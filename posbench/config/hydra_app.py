"""The use of Hydra: composes settings from yaml files and overrides, and reports every mistake in one line."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import hydra
import hydra._internal.hydra
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from posbench.config import config_dir
from posbench.config.hydra_errors import one_line
from posbench.config.keys import OPTION_SCHEMAS, SCHEMAS, keys
from posbench.config.schema import SweepScript
from posbench.config.validation import check_effect, check_option, validate
from posbench.config.yaml_file import yaml_error
from posbench.errors import ConfigError, PosbenchError, unknown
from posbench.instantiate import allow
from posbench.names import check_name

Settings = TypeVar("Settings")


def run_app(
    name: str, run: Callable[[Any], None], arguments: Sequence[str], report_error: Callable[[object], None]
) -> int:
    """Composes configs/<name>.yaml with overrides and calls `run` with the settings, once per job of a multirun.

    Args:
        report_error: called with the one line of a mistake of the user.

    Returns:
        The exit status: 2 after a mistake of the user. Other errors keep their traceback.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Hydra would otherwise print its errors over many lines and exit.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [f"posbench {name}", *arguments]  # Hydra reads its arguments from nowhere else
    schema = SCHEMAS[name]
    OmegaConf.register_new_resolver("schemes", all_schemes, replace=True)
    ConfigStore.instance().store(name=f"{name}_settings", node=schema)
    n_failed, composed = 0, False
    broken_pipe: BrokenPipeError | None = None

    # hydra.main has no argument for its classes.
    hydra._internal.hydra.ConfigLoaderImpl = SafeLoader  # type: ignore[misc]
    hydra._internal.hydra.Hydra = OnceComposed  # type: ignore[misc]

    @hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)
    def app(config: DictConfig) -> None:
        nonlocal n_failed, composed, broken_pipe
        composed = True
        try:
            allow_packages(config.allow)
            check_empty(HydraConfig.get().overrides.task)
            run(to_settings(schema, config, given_keys()))
        except PosbenchError as error:  # the other jobs of a multirun go on
            n_failed += 1
            report_error(error)
        except (
            OmegaConfBaseException
        ) as error:  # an interpolation, to which Hydra would add a line of its own
            n_failed += 1
            report_error(one_line(error, schema))
        except BrokenPipeError as error:  # Hydra would print a line about it
            broken_pipe = error

    try:
        app()
    except PosbenchError as error:
        report_error(error)
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        report_error(one_line(error, schema))
        return 2
    except (yaml.YAMLError, UnicodeDecodeError, AssertionError) as error:
        if composed:
            raise
        report_error(yaml_error(error))
        return 2
    if broken_pipe:
        raise broken_pipe
    return 2 if n_failed else 0


def all_schemes() -> list[str]:
    """Returns the names in configs/scheme, for `grid.scheme: ${schemes:}`."""
    return sorted(path.stem for path in (config_dir() / "scheme").glob("*.yaml"))


class OnceComposed(Hydra):
    """Hydra without the composition of all settings that only reads hydra.mode, which no yaml file sets."""

    def get_mode(self, config_name: str | None, overrides: list[str]) -> Any:
        return super().get_mode(config_name, overrides) if any("hydra" in one for one in overrides) else None


class SafeLoader(ConfigLoaderImpl):
    """Hydra's loader, for yaml files that can come from others.

    They may set neither `allow` nor Hydra itself, whose callbacks, launchers and loggers are called as it starts.
    """

    def _process_config_searchpath(self, *arguments: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                super()._process_config_searchpath(*arguments)
            except UserWarning as error:
                path = re.sub(r".*path=(.*) is not available.*", r"\1", str(error))
                raise ConfigError(
                    f"hydra.searchpath {path}: no such folder; give existing ones, as in [file:///home/me/my_configs]"
                ) from None

    def _load_single_config(self, default: Any, repo: Any) -> ConfigResult:
        found = super()._load_single_config(default, repo)
        own = found.path == f"file://{config_dir()}"
        if found.path.startswith(("file://", "pkg://")) and found.provider != "hydra":
            for key in ("allow",) if own else ("allow", "hydra"):
                if key in found.config:
                    raise ConfigError(
                        f"{default.config_path}.yaml in {found.path} sets {key!r}, which only the command line may: "
                        "remove it from the file"
                    )
        return found


def to_settings(schema: type[Settings], config: DictConfig, given: Sequence[str] = ()) -> Settings:
    """Converts a composed config to settings.

    Args:
        given: keys on the command line.

    Raises:
        ConfigError: for a key outside the schema, also one added by `+`, and for a value that is not allowed or changes
            nothing.
    """
    # From a plain copy: a typed config would accept a key that was added by `+`.
    plain = OmegaConf.to_container(config, resolve=True)
    found = to_dataclass(schema, plain, "")
    for one in dataclasses.fields(found):  # type: ignore[arg-type]
        if entry := one.metadata.get("of"):
            entries = getattr(found, one.name)
            setattr(
                found,
                one.name,
                {key: to_dataclass(entry, entries[key], f"{one.name}.{key}.") for key in entries},
            )
    check_names(found)
    validate(found)
    grid = found.grid.train if isinstance(found, SweepScript) else {}
    axes = {f"train.{key}": values for key, values in grid.items()}
    check_effect(found, "", [key.removeprefix("grid.") for key in given], axes)
    return found


def check_names(settings: Any, prefix: str = "") -> None:
    """Raises ConfigError for a name in the settings, or the name of an entry, that breaks the rule of names."""
    for one in dataclasses.fields(settings):
        key, value = f"{prefix}{one.name}", getattr(settings, one.name)
        if dataclasses.is_dataclass(value):
            check_names(value, f"{key}.")
        elif "of" in one.metadata or "is_name" in one.metadata:
            for name in [value] if isinstance(value, str) else value:
                check_name(key, name)


def allow_packages(packages: Any) -> None:
    """Allows the packages of the setting `allow`, and no others."""
    names = list(packages) if isinstance(packages, ListConfig) else [packages]
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError(f"allow {name!r}: give top-level packages, such as allow=[my_schemes]")
    allow(names)


def to_dataclass(schema: type[Settings], plain: Any, prefix: str) -> Settings:
    """Converts a plain dictionary to an object of a schema; `prefix` is its place in the settings, for errors."""
    if not isinstance(plain, Mapping):
        raise ConfigError(
            f"{prefix.rstrip('. ')} is {plain!r}: give settings by name, such as {{{keys(schema)[0]}: ...}}"
        )
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error, schema, prefix)) from None


def check_empty(overrides: Sequence[str]) -> None:
    """Raises ConfigError for an override by {}, which Hydra would merge into what is there and so ignore."""
    for one in overrides:
        key, _, value = one.lstrip("+~").partition("=")
        if re.fullmatch(r"\{\s*\}", value):
            raise ConfigError(
                f"{key}={{}} changes nothing: remove an entry by '~{key}.NAME', all by '~{key}'"
            )


def is_sweep(override: str) -> bool:
    """Returns whether --multirun runs once for each of several values of an override."""
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:  # reported when the settings are composed
        return False


def given_overrides() -> list[str]:
    """The settings on the command line, and where else their files are searched."""
    given = HydraConfig.get().overrides
    return [*(one for one in given.hydra if one.startswith("hydra.searchpath=")), *given.task]


def given_keys() -> list[str]:
    """The keys of the settings on the command line, without `+` and `~`."""
    return [one.lstrip("+~").partition("=")[0] for one in given_overrides()]


def load_option(group: str, name: str) -> dict[str, Any]:
    """Returns the content of <group>/<name>.yaml from the first folder of Hydra's search path that has it.

    Raises:
        ConfigError: if there is no such file, or it does not have the settings of its group.
    """
    # Hydra adds hydra.searchpath to its search path only while it composes.
    folders = [
        (one.provider, one.path)
        for one in GlobalHydra.instance().config_loader().get_search_path().get_path()
    ]
    folders += [("hydra.searchpath", folder) for folder in HydraConfig.get().searchpath]
    check_name(group, name)
    return copy.deepcopy(_read_option(tuple(folders), group, name))


@cache
def _read_option(folders: tuple[tuple[str, str], ...], group: str, name: str) -> dict[str, Any]:
    path = ConfigSearchPathImpl()
    for provider, folder in folders:
        path.append(provider, folder)
    repository = ConfigRepository(path)
    try:
        found = repository.load_config(f"{group}/{name}")
    except (yaml.YAMLError, UnicodeDecodeError, AssertionError) as error:
        raise ConfigError(f"{group}/{name}.yaml: {yaml_error(error)}") from None
    if found is None:
        raise unknown(group, name, repository.get_group_options(group, ObjectType.CONFIG))
    content = OmegaConf.to_container(found.config, resolve=True)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{group}/{name}.yaml is {content!r}: give settings by name, such as name: {name}")
    check_name(f"name of {group} {name}", content.get("name"))
    if group in OPTION_SCHEMAS:
        check_option(f"{group}/{name}.yaml", content, OPTION_SCHEMAS[group])
    return dict(content)


def load_group(group: str) -> dict[str, dict[str, Any]]:
    """Returns the content of every yaml file of configs/<group> by name, without Hydra's search path."""
    return copy.deepcopy(_read_group(config_dir() / group))


@cache
def _read_group(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            content: Any = OmegaConf.to_container(OmegaConf.load(file))
        except (yaml.YAMLError, UnicodeDecodeError, AssertionError, OSError) as error:
            raise ConfigError(f"{folder.name}/{file.name}: {yaml_error(error)}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{folder.name}/{file.name} is {content!r}: give settings by name")
        found[file.stem] = content
    return found
