"""Creates objects from plain settings: {"_target_": "package.module.Class", **keyword arguments}."""

import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from posbench.errors import ConfigError, unknown

# Whole numbers of settings stay below it: seeds, and counts far above any use.
LARGEST = 2**31
Class = TypeVar("Class", bound=type)


def register(name: str) -> Callable[[Class], Class]:
    """Returns a class decorator that registers a class of this package under a name, such as "scheme/rope".

    Identities hash the registered name in place of the import path, so that moving or renaming a module or a class
    changes no identity. A subclass does not inherit the name.
    """

    def decorate(cls: Class) -> Class:
        cls._registered_name = name  # type: ignore[attr-defined]
        return cls

    return decorate


def registered_name(path: str) -> str:
    """Returns the registered name of the class at a dotted path, or the path if the class is not of this package."""
    target = locate(path)
    if not getattr(target, "__module__", "").startswith("posbench."):
        return path
    return vars(target).get("_registered_name", path)


def by_name(settings: Any) -> Any:
    """Returns settings for hashing: every `_target_`, also a nested one, is replaced by its registered name."""
    if isinstance(settings, Mapping):
        return {
            key: registered_name(value) if key == "_target_" else by_name(value)
            for key, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [by_name(value) for value in settings]
    return settings


def locate(path: str) -> Any:
    """Imports the class or function at a dotted path; raises ConfigError if there is none."""
    module_name, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"_target_ {path!r} cannot be imported ({error}): give package.module.Name, importable from here "
            "(is its folder on PYTHONPATH?)"
        ) from None


def instantiate(settings: Mapping[str, Any], *args: Any) -> Any:
    """Calls the target with `args` and the other settings as keyword arguments.

    Raises:
        ConfigError: if the target is missing, or has no such argument, or an argument is of another type.
    """
    if "_target_" not in settings:
        raise ConfigError(f"settings without _target_: {dict(settings)}; add the class to create")
    target = locate(settings["_target_"])
    keywords = {key: value for key, value in settings.items() if key != "_target_"}
    parameters = inspect.signature(target).parameters
    for key in keywords:
        if key not in parameters:
            raise unknown(f"setting of {target.__name__}", key, list(parameters)[len(args) :])
    for key, parameter in list(parameters.items())[len(args) :]:
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and key not in keywords:
            raise ConfigError(f"{target.__name__} has no {key}: add this setting")
    hints = _hints(target)
    for key, value in keywords.items():
        if not admits(hints.get(key, Any), value):
            raise ConfigError(
                f"setting {key} of {target.__name__} is {value!r}: give {describe_type(hints[key])}"
            )
    return target(*args, **keywords)


def _hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # an annotation that is imported for type checkers only
        return {}


def admits(annotation: Any, value: Any) -> bool:
    """Returns whether a plain value, as yaml has them, is of an annotated type.

    A number of type float is finite and may be an int, but a bool is neither. A class that yaml has no values of admits
    none; an annotation that is not a type, such as Any, admits all.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (UnionType, Union):
        return any(admits(each, value) for each in arguments)
    if origin is Literal:
        return value in arguments
    kind = origin or annotation
    if not isinstance(kind, type):
        return True
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return type(value) is int and abs(value) < LARGEST
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if issubclass(kind, Sequence) and kind is not str:
        return (
            isinstance(value, Sequence)
            and not isinstance(value, str)
            and all(admits(arguments[0], entry) for entry in value if arguments)
        )
    return isinstance(value, kind)


def describe_type(annotation: Any) -> str:
    """Returns the name of an annotated type for a message, such as "int", "list[int]" or "float | None"."""
    return re.sub(r"\b(\w+\.)+", "", inspect.formatannotation(annotation))
