"""Errors of Hydra and OmegaConf as one line: what was given, what is allowed and what to do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import get_args, get_origin

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ConfigTypeError, ValidationError

from posbench.config.keys import keys, kind_and_rule
from posbench.config.overrides import one_value, with_quotes
from posbench.config.setting import Rule
from posbench.errors import hint, unknown
from posbench.instantiate import describe_type
from posbench.renamed import current_name


def one_line(error: BaseException, schema: type, prefix: str = "") -> str:
    """Formats an error of Hydra or OmegaConf as one line; `prefix` is the place of the schema in the settings."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        if any(error.override.count(one) != error.override.count(other) for one, other in ("[]", "{}")):
            return f"cannot read {error.override!r}: a bracket has no partner"
        return f"cannot read {error.override!r}: write key=value, with texts in quotes: {with_quotes(error.override)}"
    if missing := re.search(r"Could not find '([^'/]+)/([^']*)'", text):
        group, name = missing.groups()
        return str(unknown(group, name, re.findall(r"^\t(\S+)$", text, re.MULTILINE)))
    if several := re.match(r"Ambiguous value for argument '(.+)'$", text, re.MULTILINE):
        return one_value(several[1])
    if twice := re.match(r"Multiple values for (\S+)\. .*: (.+)'$", text):
        return f"+{twice[1]}={twice[2]}: {twice[1]} has a value already, write {twice[1]}={twice[2]} to replace it"
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
    override = re.match(r"Error merging override (.+)", text)
    given = re.search(r"Could not override '([^']+)'", text) or (override and re.match(r"[^=]+", override[1]))
    # An error names the key of the override, a key inside its value, or both; the longer one is more precise.
    key = max(given[given.lastindex or 0] if given else "", getattr(cause, "full_key", None) or "", key=len)
    if key and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        parent = cause.parent_node if isinstance(cause.parent_node, DictConfig) else {}
        present = [f"{prefix}{key.rpartition('.')[0]}.{name}" for name in parent]
        file = re.match(r"In '(\S+)': ", text)
        return (f"{file[1]}.yaml: " if file else "") + unknown_key(
            f"{prefix}{key}", keys(schema, prefix), present
        )
    if override and override[1].startswith("~") and isinstance(cause, ConfigTypeError):
        return f"{override[1]}: only entries of dictionaries can be removed; give the setting a value"
    if composing := re.match(r"In '(\S+)': \w+ raised while composing config:\n(.+)", text):
        return (
            f"{composing[1]}.yaml: {composing[2]}; posbench describe shows the settings of others of its kind"
        )
    first = str(cause).splitlines()[0].rstrip(".") if str(cause) else type(cause).__name__
    if key and isinstance(cause, ValidationError) and (allowed := allowed_values(schema, key.lstrip("+~"))):
        what = f"{prefix}{key}: {first}"
        if override and override[1].startswith(f"{key}="):
            what = override[1]
        elif found := re.match(r"Value (.+) of type '\w+'|Value (.+) is not", first):
            what = f"{prefix}{key} {found[1] or found[2]}"
        value = override[1].partition("=")[2] if override else ""
        return f"{what}: give {allowed.format(key=f'{prefix}{key}', value=value or 'VALUE')}"
    return f"{prefix}{key}: {first}" if key else f"{first}; see --help"


def allowed_values(schema: type, key: str) -> str:
    """Returns what a setting allows, in words with places for {key} and {value}, or "" for an unknown key."""
    if (found := kind_and_rule(schema, key)) is None:
        return ""
    kind, rule = found
    kinds = (
        {get_origin(one) or one for one in get_args(kind) or [kind]}
        if get_origin(kind) not in (list, dict)
        else {get_origin(kind)}
    )
    if list in kinds:
        return "a list, such as '{key}=[{value}]'"
    if dict in kinds or any(map(dataclasses.is_dataclass, kinds)):
        return "settings by name, such as {key}.NAME=VALUE"
    if rule.choices:
        return rule.allowed
    if kinds & {int, float}:
        numbers = rule.numbers if rule.numbers != Rule().numbers else "a number"
        numbers = numbers.replace("a number", "a whole number") if float not in kinds else numbers
        return numbers + " or null" * (type(None) in kinds)
    return "true or false" if kinds == {bool} else describe_type(kind)


def unknown_key(key: str, allowed: list[str], present: Sequence[str] = ()) -> str:
    """Returns the error message for an unknown key, with the keys of the same group."""
    if current_name(key, present):  # among the keys of a file, which no schema lists
        allowed = list(present)
    for free in (one for one in allowed if key.startswith(f"{one}.")):
        return f"{key!r} is not set here: write +{key}=VALUE to add to {free}"
    if key in allowed:
        return f"{key!r} has no such entry in its file: add one with +{key}.NAME=VALUE"
    parent = key.rpartition(".")[0]
    beside = [one for one in allowed if one.rpartition(".")[0] == parent] if parent else []
    groups = sorted({one.partition(".")[0] for one in allowed})
    return f"unknown setting {key!r}: choose one of {', '.join(beside or groups)}{hint(key, [*groups, *allowed])}"
