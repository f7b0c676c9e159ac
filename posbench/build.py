"""Objects from plain settings: {"_target_": "package.module.Class", **keyword arguments}."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from posbench.errors import ConfigError, unknown


def locate(path: str) -> Any:
    """The class or function that a dotted path names."""
    module_name, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"_target_ {path!r} cannot be imported ({error}): give package.module.Name, importable from here "
            "(is its folder on PYTHONPATH?)"
        ) from None


def build(settings: Mapping[str, Any], *args: Any) -> Any:
    """Call the target with `args` and the other settings as keyword arguments."""
    if "_target_" not in settings:
        raise ConfigError(f"settings without _target_: {dict(settings)}; name what is to be built")
    target = locate(settings["_target_"])
    keywords = {key: value for key, value in settings.items() if key != "_target_"}
    parameters = inspect.signature(target).parameters
    for key in keywords:
        if key not in parameters:
            raise unknown(f"setting of {target.__name__}", key, list(parameters)[len(args) :])
    return target(*args, **keywords)
