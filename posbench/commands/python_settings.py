"""Settings of the functions in `posbench.api`, checked and composed as those of a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posbench.errors import ConfigError


def checked(settings: Mapping[str, Any] | None, arguments: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    """Returns settings by dotted name; raises ConfigError for other objects, and for those that are arguments."""
    if not isinstance(settings, Mapping | None):
        raise ConfigError(f"settings {settings!r}: give values by name, such as {{'runtime.device': 'cpu'}}")
    for key in settings or {}:
        if not isinstance(key, str):
            raise ConfigError(f"settings {key!r}: give names of settings, such as 'runtime.device'")
        for function, names in arguments.items():
            if key in names:
                raise ConfigError(f"settings {key!r}: give it as the argument of {function}")
    return settings or {}


def composed(command: str, groups: Mapping[str, str], settings: Mapping[str, Any]) -> Any:
    """Composes the settings of a command from names of groups and settings by dotted name."""
    from posbench.config.hydra_compose import compose

    chosen = {
        **groups,
        **{key: value for key, value in settings.items() if "." not in key and key != "allow"},
    }
    for group, name in chosen.items():
        if not isinstance(name, str):
            raise ConfigError(f"{group} {name!r}: give a name, such as those of posbench list")
    return compose(command, chosen, {key: value for key, value in settings.items() if key not in chosen})
