"""Hydra at the edge: configs in, plain settings out, and every mistake as one line."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from posbench import settings
from posbench.errors import ConfigError, PosbenchError, unknown

Settings = TypeVar("Settings")

SCHEMAS = {
    "train": settings.TrainScript,
    "evaluate": settings.EvaluateScript,
    "sweep": settings.SweepScript,
    "figures": settings.FiguresScript,
}


def configs() -> Path:
    """The folder of configs: beside the package in a checkout, inside it when installed."""
    here = Path(__file__).parent
    return next(path for path in (here.parent / "configs", here / "configs") if path.is_dir())


def launch(name: str, run: Callable[[Any], None]) -> None:
    """Compose configs/<name>.yaml with the command line's overrides and call `run` with its settings.

    Exits with status 2 and one line on a user's mistake; other errors keep their traceback.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Hydra would print its errors over many lines and exit by itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    schema = SCHEMAS[name]
    ConfigStore.instance().store(name=f"{name}_settings", node=schema)
    mistakes = 0

    @hydra.main(version_base="1.3", config_path=str(configs()), config_name=name)
    def app(config: DictConfig) -> None:
        nonlocal mistakes
        try:
            run(parse(schema, config))
        except PosbenchError as error:  # the other jobs of a multirun go on
            mistakes += 1
            print(f"error: {error}", file=sys.stderr)

    try:
        app()
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {one_line(error, schema)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        sys.exit(130)
    if mistakes:
        sys.exit(2)


def parse(schema: type[Settings], config: DictConfig) -> Settings:
    """The settings of a composed config; a key that the schema lacks is an error, also behind a `+`."""
    try:
        typed = OmegaConf.merge(OmegaConf.structured(schema), config)
        return OmegaConf.to_object(typed)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error, schema)) from None


def choice(group: str, name: str) -> dict[str, Any]:
    """The content of configs/<group>/<name>.yaml, found wherever Hydra's search path leads."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options(group, ObjectType.CONFIG)
    if name not in names:
        raise unknown(group, name, names)
    found = loader.repository.load_config(f"{group}/{name}")  # type: ignore[attr-defined]
    return OmegaConf.to_container(found.config, resolve=True)  # type: ignore[return-value]


def one_line(error: BaseException, schema: type) -> str:
    """An error of Hydra or OmegaConf as what was given, what is allowed and what to do."""
    text = str(error)
    missing = re.search(r"Could not find '([^'/]+)/([^']+)'", text)
    if missing:
        group, name = missing.groups()
        return str(unknown(group, name, re.findall(r"^\t(\S+)$", text, re.MULTILINE)))
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
    key = getattr(cause, "full_key", None)
    given = re.search(r"Could not override '([^']+)'", text)
    if (given and "not in struct" in f"{text} {cause}") or (key and "not in" in str(cause)):
        return str(unknown("setting", given.group(1) if given else str(key), keys(schema)))
    if "not in" in str(cause) and given:
        return str(unknown("setting", given.group(1), keys(schema)))
    first = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    where = f"{key}: " if key else ""
    return f"{where}{first.rstrip('.')}; see --help and --cfg job for what may be set"


def keys(schema: type, prefix: str = "") -> list[str]:
    """Every dotted key of a schema."""
    found = []
    hints = get_type_hints(schema)
    for one in dataclasses.fields(schema):
        path = f"{prefix}{one.name}"
        kind = hints[one.name]
        found += keys(kind, f"{path}.") if dataclasses.is_dataclass(kind) else [path]  # type: ignore[arg-type]
    return found
