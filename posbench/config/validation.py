"""Checks of settings against the ranges beside their fields; composed settings of every command pass here.

A type is checked by OmegaConf where a schema has it, and here inside dictionaries, whose keys a schema does not list.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_type_hints

from posbench.config.setting import Rule
from posbench.errors import ConfigError, unknown
from posbench.instantiate import admits, describe_type

NO_RULE = Rule()
# What a dictionary without a schema holds: constructor arguments, in which a list may have a value twice.
FREE = Rule(distinct=False)


def validate(settings: Any, prefix: str = "") -> None:
    """Raises ConfigError for the first value outside of its range; `prefix` is the key of `settings` and a dot."""
    for one in dataclasses.fields(settings):
        rule, value = one.metadata.get("rule", NO_RULE), getattr(settings, one.name)
        check_value(f"{prefix}{one.name}", value, rule)


def check_effect(
    settings: Any,
    prefix: str = "",
    given: Collection[str] = (),
    axes: Mapping[str, Sequence[Any]] = MappingProxyType({}),
) -> None:
    """Raises ConfigError for the first setting that differs from its default and changes nothing because of another.

    Args:
        given: keys on the command line. What is in a file is a preference where the other setting is given.
        axes: lists of values that stand in place of a setting, by its key.
    """
    for one in dataclasses.fields(settings):
        key, value, rule = (
            f"{prefix}{one.name}",
            getattr(settings, one.name),
            one.metadata.get("rule", NO_RULE),
        )
        if dataclasses.is_dataclass(value):
            check_effect(value, f"{key}.", given, axes)
        for name, allowed in rule.used_with.items():
            other = f"{prefix}{name}"
            present = axes.get(other, [getattr(settings, name)])
            is_set = any(entry != default(one) for entry in axes.get(key, [value]))
            if (
                is_set
                and not any(allows(allowed, entry) for entry in present)
                and (is_given(key, given) or other not in given)
            ):
                raise ConfigError(
                    f"{changed(key, value, default(one))} changes nothing with {other} "
                    f"{', '.join(map(str, present))}: remove it, or give {other} {allowed.allowed}"
                )


def default(one: dataclasses.Field[Any]) -> Any:
    """Returns the default of a field."""
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def changed(key: str, value: Any, usual: Any) -> str:
    """Returns the key of the first setting that differs from the default: `key`, or one below it."""
    if dataclasses.is_dataclass(value):
        names = [one.name for one in dataclasses.fields(value)]
        return next(f"{key}.{name}" for name in names if getattr(value, name) != getattr(usual, name))
    return key


def is_given(key: str, given: Collection[str]) -> bool:
    """Returns whether a key or one below it is on the command line."""
    return any(f"{one}.".startswith(f"{key}.") for one in given)


def check_given_list(key: str, values: Collection[str], given: Collection[str]) -> None:
    """Raises ConfigError for an empty list on the command line where no list is every choice."""
    if not values and key in given:
        raise ConfigError(f"{key}=[]: give a name, such as [NAME], or leave {key} out for all")


def allows(rule: Rule, value: Any) -> bool:
    """Returns whether a rule allows a value."""
    try:
        check_value("", value, rule)
    except ConfigError:
        return False
    return True


def check_command(settings: Any, prefix: str, given: Collection[str], command: str, *parts: str) -> None:
    """Raises ConfigError for a setting on the command line that has an effect in other commands only.

    Args:
        parts: other commands whose work this one does as well.
    """
    for one in dataclasses.fields(settings):
        key, rule = f"{prefix}{one.name}", one.metadata.get("rule", NO_RULE)
        if rule.commands and {command, *parts}.isdisjoint(rule.commands) and is_given(key, given):
            raise ConfigError(
                f"{key} changes nothing in posbench {command}, it is for posbench {', '.join(rule.commands)}: remove it"
            )


def check_value(key: str, value: Any, rule: Rule) -> None:
    """Raises ConfigError for a value that a rule does not allow."""
    if dataclasses.is_dataclass(value):
        validate(value, f"{key}.")
    elif isinstance(value, Mapping):
        check_mapping(key, value, rule)
    elif isinstance(value, list):
        for entry in value:
            check_value(key, entry, rule)
        if rule.distinct:
            check_distinct(key, value)
    elif isinstance(value, str):
        check_text(key, value, rule)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        check_number(key, value, rule)


def check_number(key: str, value: float, rule: Rule) -> None:
    """Raises ConfigError for a number outside of its range, nan or an infinity."""
    outside = (
        (rule.least is not None and value < rule.least)
        or (rule.most is not None and value > rule.most)
        or (rule.above is not None and value <= rule.above)
        or (rule.below is not None and value >= rule.below)
    )
    if outside or (isinstance(value, float) and not math.isfinite(value)):
        allowed = "a finite number" if rule.numbers == NO_RULE.numbers else rule.numbers
        raise ConfigError(f"{key} {value}: give {allowed}")


def check_text(key: str, value: str, rule: Rule) -> None:
    """Raises ConfigError for a text that is not among the choices or does not match the pattern."""
    if rule.choices and value not in rule.choices:
        raise unknown(key, value, [str(choice) for choice in rule.choices])
    if rule.pattern and not re.fullmatch(rule.pattern[0], value):
        raise ConfigError(f"{key} {value!r}: give {rule.pattern[1]}")


def check_distinct(key: str, values: list[Any]) -> None:
    """Raises ConfigError for a value that a list has twice, which would be computed once."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ConfigError(f"{key} has {value!r} twice: give it once")


def check_mapping(key: str, value: Mapping[Any, Any], rule: Rule) -> None:
    """Raises ConfigError for keys that a dictionary cannot have, and for their values."""
    if rule.target and not isinstance(value.get("_target_"), str):
        raise ConfigError(f"{key} has no _target_: add the dotted path of the class to create")
    if rule.keys_of:
        check_partial(key, value, rule.keys_of())
    elif rule.lists_of:
        for name, entries in value.items():
            if not isinstance(entries, list) or not entries:
                raise ConfigError(f"{key}.{name} is {entries!r}: give a list of values")
            for entry in entries:
                check_partial(key, {name: entry}, rule.lists_of())
            check_distinct(f"{key}.{name}", entries)
    else:
        for name, entry in value.items():
            if rule.keys and name not in rule.keys:
                raise unknown("setting", f"{key}.{name}", [f"{key}.{one}" for one in rule.keys])
            check_value(f"{key}.{name}", entry, FREE)


def check_option(where: str, content: Any, schema: type) -> None:
    """Raises ConfigError unless the content of a yaml file, at `where`, is an object of a settings class."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} has no settings by name: write lines such as name: ...")
    try:
        check_partial("", content, schema)
        settings = to_settings(content, schema)
        validate(settings)
        check_effect(settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_settings(content: Mapping[str, Any], schema: type) -> Any:
    """Returns an object of a settings class from fields that `check_partial` allows."""
    hints = get_type_hints(schema)
    nested = {
        name: to_settings(value, hints[name])
        for name, value in content.items()
        if dataclasses.is_dataclass(hints[name])
    }
    return schema(**{**content, **nested})


def check_partial(key: str, values: Mapping[Any, Any], schema: type) -> None:
    """Raises ConfigError unless `values` are some of the fields of a settings class, of their types and ranges."""
    hints = get_type_hints(schema)
    rules = {one.name: one.metadata.get("rule", NO_RULE) for one in dataclasses.fields(schema)}
    prefix = f"{key}." if key else ""
    for name, value in values.items():
        if name not in hints:
            raise unknown("setting", f"{prefix}{name}", [f"{prefix}{one}" for one in hints])
        if isinstance(hints[name], type) and dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{prefix}{name} {value!r}: give settings by name")
            check_partial(f"{prefix}{name}", value, hints[name])
            continue
        check_value(f"{prefix}{name}", value, rules[name])
        if not admits(hints[name], value):
            raise ConfigError(f"{prefix}{name} {value!r}: give {describe_type(hints[name])}")
