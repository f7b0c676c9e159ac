"""Reads the choices of every config group from their yaml files and from the source text of their classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from posbench.commands.kinds import kind
from posbench.commands.source import Definition, definition, parts
from posbench.config import config_dir
from posbench.config.keys import OPTION_SCHEMAS
from posbench.config.validation import check_option
from posbench.config.yaml_file import read_mapping
from posbench.errors import unknown

# Argument of `posbench list` -> config group.
GROUPS = {
    "schemes": "scheme",
    "extensions": "extension",
    "ensembles": "ensemble",
    "tasks": "task",
    "experiments": "experiment",
    "sizes": "size",
    "data": "data",
    "figures": "figure",
}
PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}|https?://[^\s,;)]+[^\s,;).:]")
# Module of compositions; a file that builds one describes its last member.
COMPOSITIONS = "posbench.position.compose."


@dataclass(frozen=True)
class Choice:
    """One yaml file of a config group.

    Attributes:
        content: the file's content.
        header: the comment above it, as one paragraph.
        definition: the class or function that it builds or draws with, None where there is none.
    """

    group: str
    name: str
    path: Path
    content: dict[str, Any]
    header: str
    definition: Definition | None

    @property
    def about(self) -> str:
        """The docstring of the module, or the comment above the file's content.

        A scheme has such a comment where it is a composition that its parts do not describe.
        """
        described = self.group == "figure" or (self.group == "scheme" and self.header)
        if self.definition is None or described:
            return self.header
        return self.definition.module_doc

    @property
    def summary(self) -> str:
        """One line: the first sentence of `about`, and the settings in which a variant differs from its class."""
        first = re.split(r"(?<=[.?!])\s", " ".join(self.about.split("\n\n")[0].split()), maxsplit=1)[0]
        first = first or str(self.content.get("title", ""))
        changed = "" if self.group == "scheme" and self.header else ", ".join(self.changed_settings())
        return f"{first.rstrip('.')} ({changed})." if changed else first

    @property
    def paper(self) -> str:
        """The first arXiv id or address, "" where none is given."""
        found = PAPER.search(self.about) or PAPER.search(self.header)
        return found[0] if found else ""

    @property
    def kind(self) -> str:
        """The kind of the choice in a few words, "" where the group has no kinds."""
        content = self.content
        if self.group in ("scheme", "extension"):
            return kind(content["build"])
        if self.group == "task" and self.definition:
            return self.definition.constants()["task"]
        if self.group == "size":
            return f"{content['n_layers']} layers, width {content['d_model']}, {content['n_heads']} heads"
        if self.group == "data":
            return str(content["source"])
        return self.definition.module if self.group == "figure" and self.definition else ""

    def changed_settings(self) -> list[str]:
        """Returns KEY=VALUE for each setting of a variant that differs from the default of its class.

        A variant is a file with another name than the module of its class.
        """
        build = self.content.get("build")
        if not build or self.definition is None or self.definition.module == self.name:
            return []
        own = next((part for part in parts(build) if definition(part["_target_"]) == self.definition), {})
        defaults = {
            name: default for name, default in (self.definition.parameters() or {}).items() if default
        }
        return [
            f"{key}={value}"
            for key, value in own.items()
            if key in defaults and repr(value) != ast.unparse(defaults[key])
        ]


def names(group: str) -> list[str]:
    """Returns the names of a group's choices, sorted."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


@cache
def choice(group: str, name: str) -> Choice:
    """Reads the choice of a name, which the group must have."""
    path = config_dir() / group / f"{name}.yaml"
    content = read_mapping(path)
    if group in OPTION_SCHEMAS:
        check_option(str(path), content, OPTION_SCHEMAS[group])
    return Choice(group, name, path, content, header(path.read_text("utf-8")), _definition(content))


def header(text: str) -> str:
    """Returns the comment lines above the content of a yaml file, as one paragraph."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines).strip()


def _definition(content: Mapping[str, Any]) -> Definition | None:
    build = content.get("build")
    if not build:
        return definition(content["draw"]) if "draw" in content else None
    if build["_target_"].startswith(COMPOSITIONS):
        build = list(parts(build))[-1]
    return definition(build["_target_"])


def check_names(kind: str, given: Iterable[str], allowed: Collection[str]) -> None:
    """Raises ConfigError for the first name that is not allowed."""
    for name in given:
        if name not in allowed:
            raise unknown(kind, name, allowed)
