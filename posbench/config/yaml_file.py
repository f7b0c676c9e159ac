"""Reading yaml files that users write, and their mistakes as one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from posbench.errors import ConfigError


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a yaml file of settings by name; raises ConfigError for any other content."""
    try:
        content = yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {yaml_error(error)}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give a file") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} has no settings by name: write lines such as name: {path.stem}")
    return content


def yaml_error(error: yaml.YAMLError | UnicodeDecodeError | AssertionError) -> str:
    """Returns an error of reading yaml, or of OmegaConf in adding to it, as one line: the file, the line, the problem."""
    if isinstance(error, AssertionError):
        return (
            "a setting is given below one that is null, such as extension.build.factor without an extension: choose the "
            "option first, as in extension=pi"
        )
    if isinstance(error, UnicodeDecodeError):
        return f"a yaml file is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}: " if mark else ""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{where}not valid yaml ({problem}): mend this line"
