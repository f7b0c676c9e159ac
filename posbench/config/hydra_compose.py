"""Composes the settings of a command from Python, for `posbench.api`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hydra
import hydra._internal.hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from posbench.config import config_dir
from posbench.config.hydra_app import SafeLoader, allow_packages, to_settings
from posbench.config.hydra_errors import one_line
from posbench.config.keys import SCHEMAS
from posbench.config.overrides import expand_home, override_value
from posbench.config.yaml_file import yaml_error
from posbench.errors import ConfigError


def compose(name: str, groups: Mapping[str, str], settings: Mapping[str, Any]) -> Any:
    """Composes the settings of a command outside the command line.

    Args:
        name: of the command.
        groups: config group -> name of its choice.
        settings: value by dotted name; `allow` and `hydra.searchpath` are as on the command line.

    Raises:
        ConfigError: for a mistake in them.
    """
    schema = SCHEMAS[name]
    ConfigStore.instance().store(name=f"{name}_settings", node=schema)
    hydra._internal.hydra.ConfigLoaderImpl = SafeLoader  # type: ignore[misc]
    given = [f"{group}={value}" for group, value in groups.items()]
    given += [
        f"{'' if key.startswith('hydra.') else '++'}{key}={override_value(value)}"
        for key, value in settings.items()
    ]
    instance = GlobalHydra.instance()
    before, instance.hydra = instance.hydra, None
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = hydra.compose(name, given)
        allow_packages(config.allow)
        return expand_home(to_settings(schema, config))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error, schema)) from None
    except (yaml.YAMLError, UnicodeDecodeError, AssertionError) as error:
        raise ConfigError(yaml_error(error)) from None
    finally:
        instance.hydra = before
