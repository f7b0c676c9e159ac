"""Prints a script that makes a shell complete commands, settings and their choices.

Load it once, in the file that the shell reads at its start:

  bash   ~/.bashrc:                    eval "$(posbench completion bash)"
  zsh    ~/.zshrc, after compinit:     eval "$(posbench completion zsh)"
  fish   ~/.config/fish/config.fish:   posbench completion fish | source

Then `posbench train scheme=<TAB>` lists the schemes, and `posbench sweep train.<TAB>` the settings of training.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

import argcomplete
import yaml

from posbench.commands import COMMANDS, load
from posbench.commands.catalog import choice, names
from posbench.config import config_dir
from posbench.config.keys import SCHEMAS, kind_and_rule, typed_keys

SHELLS = ("bash", "zsh", "fish")
# Settings that take names of a config group, and the group.
NAMED = {
    "grid.scheme": "scheme",
    "grid.extended_schemes": "scheme",
    "grid.extension": "extension",
    "grid.ensemble": "ensemble",
    "grid.size": "size",
    "figures": "figure",
    "schemes": "scheme",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    shell = parser("completion").parse_args(arguments).shell
    print(argcomplete.shellcode(["posbench"], shell=shell))
    return 0


def complete() -> None:
    """Prints completions for the shell that has set _ARGCOMPLETE, and exits."""
    top = argparse.ArgumentParser(prog="posbench", add_help=False)
    commands = top.add_subparsers()
    for name, (_, line) in COMMANDS.items():
        command = commands.add_parser(name, help=line)
        if name in SCHEMAS:
            command.add_argument("--multirun", action="store_true")
            command.add_argument("--cfg", choices=("job", "hydra", "all"))
            command.add_argument("--config-dir")
            words: Any = command.add_argument("overrides", nargs="*")
            words.completer = Overrides(name)
        else:
            load(name).add_arguments(command)
    argcomplete.autocomplete(top)


class Overrides:
    """Completes one KEY=VALUE of a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __call__(self, prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        given = dict(word.lstrip("+").split("=", 1) for word in parsed_args.overrides or () if "=" in word)
        groups = self.groups()
        key, equals, value = prefix.partition("=")
        name = key.lstrip("+")
        if not equals:
            plus = key.removesuffix(name)
            return [f"{plus}{one}=" for one in (*groups, *self.keys({**groups, **given}))]
        # Of a list, as in grid.scheme=[rope,al, the last item is completed.
        before = prefix.removesuffix(re.split(r"[\[,]", value)[-1])
        return [f"{before}{one}" for one in self.values(name, groups)]

    def groups(self) -> dict[str, str]:
        """Returns the config groups of the command and their defaults."""
        entries = yaml.safe_load((config_dir() / f"{self.command}.yaml").read_text("utf-8"))["defaults"]
        return {
            group: name
            for entry in entries
            if isinstance(entry, dict)
            for group, name in entry.items()
            if "hydra/" not in group
        }

    def keys(self, chosen: dict[str, str]) -> list[str]:
        """Returns dotted keys: those of the schema, and the settings of the chosen scheme, extension, ensemble and task."""
        found = [key for key in typed_keys(SCHEMAS[self.command]) if not key.endswith(".build")]
        for group, name in chosen.items():
            if name in names(group):
                build = choice(group, name).content.get("build") or {}
                found += [f"{group}.build.{key}" for key in build if key != "_target_"]
        return found

    def values(self, key: str, groups: dict[str, str]) -> list[str]:
        """Returns the values of a key, where they are a closed list."""
        if key in groups or key in NAMED:
            return names(NAMED.get(key, key))
        if typed_keys(SCHEMAS[self.command]).get(key) is bool:
            return ["true", "false"]
        found = kind_and_rule(SCHEMAS[self.command], key)
        return [str(one) for one in found[1].choices] if found else []
