"""Creates objects from plain settings: {"_target_": "package.module.Class", **keyword arguments}.

Settings can come from files of others. A module outside posbench is therefore imported only if the command line allows
its package, and nothing is called but classes derived from the base class that the caller expects.
"""

import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from posbench.errors import ConfigError, unknown

# Whole numbers of settings stay below it: seeds, and counts far above any use.
LARGEST = 2**31
Class = TypeVar("Class", bound=type)
Base = TypeVar("Base")

DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_allowed: set[str] = set()
_provided: dict[str, Any] = {}


def allow(packages: Iterable[str]) -> None:
    """Sets the top-level packages outside posbench that targets may be imported from."""
    _allowed.clear()
    _allowed.update(packages)


def allowed_packages() -> frozenset[str]:
    """Returns the packages of the last call of `allow`, to be allowed in another process as well."""
    return frozenset(_allowed)


def provide(targets: Mapping[str, Any]) -> None:
    """Adds classes by dotted path that `locate` returns without an import, for copies of modules under other names."""
    _provided.update(targets)


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
    """Returns the registered name of the class at a dotted path, or the path if it is not in this package."""
    if not str(path).startswith("posbench."):
        return path
    return vars(locate(path)).get("_registered_name", path)


def by_name(settings: Any) -> Any:
    """Returns settings for hashing: every `_target_`, also a nested one, is replaced by its registered name.

    For an argument of a class of this package that may be a float, 10000 and 10000.0 are one setting.
    """
    if isinstance(settings, Mapping):
        path = settings.get("_target_")
        hints = _hints(locate(path)) if str(path).startswith("posbench.") else {}
        return {
            key: registered_name(value) if key == "_target_" else by_name(_one_number(value, hints.get(key)))
            for key, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [by_name(value) for value in settings]
    return settings


def whole_as_int(value: Any) -> Any:
    """Returns settings in which whole numbers of type float are ints, so that 4 and 4.0 have one hash."""
    if isinstance(value, Mapping):
        return {key: whole_as_int(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [whole_as_int(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _one_number(value: Any, annotation: Any) -> Any:
    """Returns a whole number as a float for an argument of type float, as an int for one of several types."""
    if annotation is float:
        return float(value) if type(value) is int else value
    several = any(kind in (float, list[float]) for kind in get_args(annotation))
    return whole_as_int(value) if several else value


def check_path(path: Any, key: str = "_target_") -> None:
    """Raises ConfigError for a dotted path of a module that is not allowed, without importing it.

    Args:
        key: the setting that holds the path, for the message.
    """
    if not isinstance(path, str) or not DOTTED.fullmatch(path):
        raise ConfigError(f"{key} {path!r}: give package.module.Name, importable from here")
    package = path.partition(".")[0]
    if package != "posbench" and package not in _allowed:
        raise ConfigError(
            f"{key} {path!r}: module {path.rpartition('.')[0]!r} is not part of posbench and was not imported; to run its "
            f"code, add allow=[{package}] to the command line (--allow {package} for posbench export and worker)"
        )


def locate(path: Any, key: str = "_target_") -> Any:
    """Imports the class or function at a dotted path; raises ConfigError if there is none or it is not allowed."""
    if isinstance(path, str) and path in _provided:
        return _provided[path]
    check_path(path, key)
    module_name, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConfigError(
            f"{key} {path!r} cannot be imported ({error}): give package.module.Name, importable from here "
            "(is its folder on PYTHONPATH?)"
        ) from None


def instantiate(settings: Mapping[str, Any], base: type[Base], *args: Any) -> Base:
    """Calls the target, a class derived from `base`, with `args` and the other settings as keyword arguments.

    Raises:
        ConfigError: if the target is missing or not such a class, or an argument is missing, unknown or of another
            type.
    """
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        raise ConfigError(f"settings without _target_: {settings!r:.200}; add the class to create")
    target = locate(settings["_target_"])
    if not inspect.isclass(target) or not issubclass(target, base):
        raise ConfigError(
            f"_target_ {settings['_target_']!r} is not a class derived from {base.__module__}.{base.__name__}: "
            "derive it from that class, or give another"
        )
    keywords = {key: value for key, value in settings.items() if key != "_target_"}
    parameters = inspect.signature(target).parameters
    for key in keywords:
        if key not in parameters:
            raise unknown(f"setting of {target.__name__}", key, list(parameters)[len(args) :])
    hints = _hints(target)
    for key, value in keywords.items():
        if not admits(hints.get(key, Any), value):
            raise ConfigError(
                f"setting {key} of {target.__name__} is {value!r}: give {describe_type(hints[key])}"
            )
    for key, parameter in list(parameters.items())[len(args) :]:
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and key not in keywords:
            raise ConfigError(f"{target.__name__} has no {key}: add this setting")
    try:
        inspect.signature(target).bind(*args, **keywords)
    except TypeError as error:
        raise ConfigError(
            f"{target.__name__} cannot be created from these settings ({error}): give each setting of its file, and "
            "no class that stands around something else"
        ) from None
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
    if kind is Any or not isinstance(kind, type):
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
