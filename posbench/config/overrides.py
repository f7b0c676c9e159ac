"""Overrides of the command line whose setting is a text: Hydra receives the text in quotes, as it was typed.

Without quotes Hydra reads results_dir=2024_10_01 as the number 20241001, and data.path=/x/epoch=3 not at all.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_origin

from posbench.config import config_dir
from posbench.config.keys import SCHEMAS, typed_keys
from posbench.config.schema import GridSettings
from posbench.errors import ConfigError

QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
# Options of Hydra, without and with a value.
FLAGS = ("--multirun", "-m", "--run", "-r", "--resolve", "--hydra-help", "--version", "--experimental-rerun")
VALUED = (
    "--cfg",
    "-c",
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--package",
    "-p",
    "--info",
    "-i",
)
# Settings that are keyword arguments of a class, which defines their names; its config file may leave some out.
ARGUMENTS = re.compile(r"(\w+\.build|overrides\.\w+)\.")
# An element of a list of texts, in quotes or not.
ELEMENT = re.compile(rf"({QUOTED})|[^\s,\[\]][^,\[\]]*(?<!\s)")


# Groups whose choices are lists of another name in a sweep.
IN_SWEEPS = tuple(one.name for one in dataclasses.fields(GridSettings))
NO_NAME = re.compile(r"null|true|false|[\d.]+", re.IGNORECASE)


def quote_texts(schema: type, arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command with the values of settings that are text, or lists of text, in quotes.

    Values that are in quotes already stay as they are, and so do the lists of values of --multirun. Keyword arguments of
    a class get `++`, so that one that the file does not list is added, and checked against the class; so do {entries} of
    a dictionary.
    """
    types = typed_keys(schema)
    arguments = options_last(arguments, list(types))
    for argument in arguments:
        check_choice(schema, argument)
    is_multirun = not {"-m", "--multirun"}.isdisjoint(arguments)
    return [_quote_argument(types, argument, is_multirun) for argument in arguments]


def check_choice(schema: type, argument: str) -> None:
    """Raises ConfigError for the choice of a config group that this command does not have, or that is no name."""
    key, equals, value = argument.partition("=")
    if not equals or not key or not (config_dir() / key / "").is_dir() or "/" in key or value.startswith("{"):
        return
    with_group = {
        name for name, one in SCHEMAS.items() if key in {field.name for field in dataclasses.fields(one)}
    }
    if key == "experiment":
        with_group = {"sweep"}
    if schema not in {SCHEMAS[name] for name in with_group}:
        if schema is SCHEMAS["sweep"] and key in IN_SWEEPS:
            raise ConfigError(f"{argument}: a sweep has a list, write 'grid.{key}=[{value}]'")
        if schema is SCHEMAS["sweep"] and key == "task":
            raise ConfigError(f"{argument}: write '+evaluate.{value}.length_multiples=[1,2]' in a sweep")
        if f"{key}s" in {one.name for one in dataclasses.fields(schema)}:
            raise ConfigError(f"{argument}: this command has a list, write '{key}s=[{value}]'")
        others = f"posbench {', '.join(sorted(with_group))}" if with_group else "other files"
        raise ConfigError(f"{argument}: {key} is no setting of this command, it is for {others}: remove it")
    if value.startswith("["):
        raise ConfigError(one_value(argument))
    if value.lower() == "null":
        none = f", {key}=none for no {key}" if (config_dir() / key / "none.yaml").is_file() else ""
        raise ConfigError(f"{argument}: give a name{none}")


def one_value(override: str) -> str:
    """Returns the error message for several values in place of one, with the list of a sweep that has them."""
    key, _, values = override.partition("=")
    values = values.removeprefix("[").removesuffix("]")
    name = key.removeprefix("train.")
    axis = f"grid.{name}" if name in IN_SWEEPS else f"+grid.{key}" if name != key else ""
    in_sweep = f" (in a sweep {shlex.quote(f'{axis}=[{values}]')})" if axis else ""
    return f"{override}: give one value, or add --multirun to run once for each{in_sweep}"


def options_last(arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Returns the arguments with options behind the overrides, where Hydra accepts both.

    Args:
        keys: of all settings.

    Raises:
        ConfigError: for an option that neither Hydra nor posbench has, or that lacks its value.
    """
    overrides, options = [], []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        name, equals, _ = argument.partition("=")
        if name not in {*FLAGS, *VALUED}:
            word = name.lstrip("-").replace("-", "_")
            value = rest[0] if rest and not equals and "=" not in rest[0] else "VALUE"
            groups = {key.partition(".")[0] for key in keys}
            meant = next((key for key in [*groups, *keys] if word in (key, key.rpartition(".")[2])), None)
            remedy = f"settings have no dashes, write {meant}={value}" if meant else "see --help"
            raise ConfigError(f"unknown option {name}: {remedy}")
        options.append(argument)
        if name in VALUED and not equals:
            if name in ("--cfg", "-c") and rest[:1] not in (["job"], ["hydra"], ["all"]):
                raise ConfigError(f"{name} needs what to print: write {name} job")
            if not rest and name not in ("--info", "-i"):
                raise ConfigError(f"{name} needs a value: write {name} VALUE")
            options += rest[:1]
            rest = rest[1:]
    return [*overrides, *options]


def _quote_argument(types: dict[str, object], argument: str, is_multirun: bool) -> str:
    key, equals, value = argument.partition("=")
    name = key.lstrip("+")
    if equals and not name:
        raise ConfigError(f"{argument} has no key: write KEY=VALUE, such as scheme=rope")
    if equals and (found := ARGUMENTS.match(key)) and found[1] in types:
        argument, key = f"++{argument}", f"++{key}"
    kind = types.get(name)
    if types.get(name.rpartition(".")[0]) == dict[str, str]:
        kind = str
    if not equals or key.startswith("-") or re.fullmatch(QUOTED, value) or (is_multirun and "," in value):
        return argument
    if get_origin(kind) is list and re.match(r"\[?range\(", value):
        raise ConfigError(f"{argument}: write the numbers, such as '{key}=[0,1,2]'")
    if get_origin(kind) is list and "," in value and not value.startswith("["):
        raise ConfigError(f"{argument}: a list has brackets, write '{key}=[{value}]'")
    if get_origin(kind) is dict and value.startswith("{") and key == name:
        return f"++{argument}"
    if kind is str and value == "null":
        raise ConfigError(f"{argument}: give a text, or leave {key} out for its default")
    if kind is str or (NO_NAME.fullmatch(value) and (config_dir() / key / "").is_dir()):
        return f"{key}={_quote(value)}"
    if kind == list[str] and re.fullmatch(r"\[.*\]", value, re.DOTALL):
        return f"{key}={ELEMENT.sub(lambda found: found[1] or _quote(found[0]), value)}"
    return argument


def _quote(text: str) -> str:
    """Returns a text in single quotes, with the escapes that Hydra removes."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def override_value(value: Any) -> str:
    """Returns a Python value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):  # also one of numpy, whose repr is a call
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(override_value, value)) + "]"
    return _quote(str(value))


def with_quotes(override: str) -> str:
    """Returns an override that Hydra cannot read with quotes around its texts, as a word for a shell."""
    key, _, value = override.partition("=")
    if re.match(r"[\[{]", value):
        value = re.sub(rf"{QUOTED}|[^\s,:\[\]{{}}]*=[^\s,\[\]{{}}]*", _in_double_quotes, value)
    else:
        value = '"' + value.replace('"', '\\"') + '"'
    return shlex.quote(f"{key}={value}")


def _in_double_quotes(found: re.Match[str]) -> str:
    return found[0] if re.fullmatch(QUOTED, found[0]) else f'"{found[0]}"'


def expand_home(value: Any) -> Any:
    """Returns settings with every text that begins with `~/` or `~user/`, which only a path does, as an absolute path."""
    if isinstance(value, str):
        return os.path.expanduser(value) if re.match(r"~[^/]*/|~$", value) else value
    if isinstance(value, list):
        return [expand_home(item) for item in value]
    if isinstance(value, dict):
        return {key: expand_home(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: expand_home(item) for name, item in given.items()})
    return value
