"""Describes one choice: summary, formula, paper, settings with their defaults, and commands that use it.

examples:
  posbench describe yarn
  posbench describe key_value
  posbench describe scheme/window      with its group, where several groups have a choice of this name
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from posbench.commands.catalog import GROUPS, Choice, choice, names
from posbench.commands.source import PACKAGE, Definition, definition, parts
from posbench.errors import ConfigError, unknown

# Config group -> commands that use a choice of it.
USES = {
    "scheme": ("posbench train scheme={name}", "posbench sweep experiment=demo 'grid.scheme=[{name}]'"),
    "extension": (
        "posbench evaluate scheme=SCHEME extension={name}",
        "posbench evaluate scheme=SCHEME extension={name} extension.layers=full",
        "posbench sweep experiment=demo 'grid.extension=[{name}]'",
    ),
    "ensemble": (
        "posbench evaluate scheme=SCHEME ensemble={name} task=key_value",
        "posbench sweep experiment=demo 'grid.ensemble=[{name}]'",
    ),
    "task": (
        "posbench evaluate scheme=SCHEME task={name} 'evaluation.length_multiples=[1,2,4]'",
        "posbench sweep experiment=demo '++evaluate.{name}.length_multiples=[1,2,4]'",
    ),
    "experiment": ("posbench sweep experiment={name}",),
    "size": ("posbench train size={name}", "posbench sweep experiment=demo size={name}"),
    "data": ("posbench train data={name}", "posbench sweep experiment=demo data={name}"),
    "figure": ("posbench sweep experiment=demo 'figures=[{name}]'",),
}
# Choices that need other settings, or have lengths of their own -> commands that use them.
OWN_USES = {
    "task/key_value_uuid": ("posbench evaluate scheme=SCHEME task=key_value_uuid",),
    "task/length_generalization": ("posbench sweep experiment=length_generalization",),
    "task/multi_document": ("posbench evaluate scheme=SCHEME task=multi_document task.build.path=FILE",),
    "task/lm_eval": ("posbench evaluate scheme=SCHEME task=lm_eval task.name=NAME",),
    "data/files": ("posbench train data=files data.path=FOLDER",),
    "extension/none": ("posbench evaluate scheme=SCHEME extension=none",),
}
# Config group -> how one of its settings is given on the command line.
SETTINGS = {
    "scheme": "scheme.build.KEY=VALUE, in a sweep overrides.scheme.{name}.KEY=VALUE",
    "extension": "extension.build.KEY=VALUE, in a sweep overrides.extension.{name}.KEY=VALUE",
    "ensemble": "ensemble.build.KEY=VALUE, in a sweep overrides.ensemble.{name}.KEY=VALUE",
    "task": "task.build.KEY=VALUE, in a sweep ++evaluate.{name}.settings.KEY=VALUE",
    "size": "size.KEY=VALUE",
    "data": "data.KEY=VALUE",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    name: Any = parser.add_argument("name", help="a name of `posbench list`, or GROUP/NAME")
    name.completer = lambda **_: [
        name if len(groups) == 1 else f"{group}/{name}"
        for name, groups in every_name().items()
        for group in groups
    ]


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    print("\n\n".join(sections(find(parser("describe").parse_args(arguments).name))))
    return 0


def every_name() -> dict[str, list[str]]:
    """Returns name -> the groups that have a choice of this name."""
    found: dict[str, list[str]] = {}
    for group in GROUPS.values():
        for name in names(group):
            found.setdefault(name, []).append(group)
    return found


def find(name: str) -> Choice:
    """Finds the choice of NAME or GROUP/NAME.

    Raises:
        ConfigError: if there is none, or if several groups have one.
    """
    group, _, own = name.rpartition("/")
    if group:
        group = GROUPS.get(group, group)
        if group not in GROUPS.values():
            raise unknown("group", group, GROUPS.values())
        if own not in names(group):
            raise unknown(group, own, names(group))
        return choice(group, own)
    groups = every_name().get(name, [])
    if len(groups) > 1:
        raise ConfigError(
            f"{name!r} is in several groups: give {' or '.join(f'{one}/{name}' for one in groups)}"
        )
    if not groups:
        raise ConfigError(f"{unknown('name', name, every_name())}; posbench list shows what each is")
    return choice(groups[0], name)


def sections(one: Choice) -> Iterator[str]:
    """Yields the paragraphs of a description."""
    yield f"{one.group} {one.name}"
    facts = {
        "kind": one.kind,
        "paper": address(one.paper),
        "settings file": f"configs/{one.group}/{one.name}.yaml",
    }
    yield "\n".join(f"{key + ':':15}{value}" for key, value in facts.items() if value)
    if one.header:
        yield textwrap.fill(one.header, 110)
    for part in definitions(one):
        yield f"{part.name} ({file_of(part)})"
        if part.module_doc and one.group != "figure":
            yield indented(part.module_doc)
        if part.doc:
            yield indented(part.doc)
    if text := settings(one):
        how = SETTINGS.get(one.group, "of its file").format(name=one.name)
        yield f"settings ({how}):"
        yield indented(text)
    yield "use:"
    yield "\n".join(f"  {line}" for line in uses(one.group, one.name))


def uses(group: str, name: str) -> list[str]:
    """Returns commands that use a choice."""
    return [line.format(name=name) for line in OWN_USES.get(f"{group}/{name}", USES[group])]


def definitions(one: Choice) -> list[Definition]:
    """Returns the classes of a choice: its own, then those of its parts."""
    inner = (definition(part["_target_"]) for part in parts(one.content.get("build")))
    return list(dict.fromkeys(found for found in (one.definition, *inner) if found is not None))


def settings(one: Choice) -> str:
    """Returns the yaml text of the settings, with its comments."""
    lines = [line for line in one.path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    if "build" in one.content:
        lines = lines[lines.index("build:") + 1 :] if "build:" in lines else []
        return textwrap.dedent("\n".join(lines[1:]))  # without the _target_
    return "\n".join(lines)


def address(paper: str) -> str:
    """Returns the address of an arXiv id; other addresses stay."""
    return paper.replace("arXiv:", "https://arxiv.org/abs/")


def file_of(one: Definition) -> str:
    """Returns the file of a definition, relative to the package where it is part of it."""
    return str(one.path.relative_to(PACKAGE.parent) if one.path.is_relative_to(PACKAGE) else one.path)


def indented(text: str) -> str:
    return textwrap.indent(text.strip(), "  ")
