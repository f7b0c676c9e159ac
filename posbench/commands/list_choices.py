"""Lists the choices of a setting: name, kind, paper and one line for each.

examples:
  posbench list                     every group
  posbench list schemes             position schemes
  posbench list extensions          context extensions around a trained scheme
  posbench list schemes --markdown  the same table in Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from posbench.commands import text_table
from posbench.commands.catalog import GROUPS, choice, names

TITLE = "# Schemes, extensions and tasks by name\n\nWritten by `posbench list --markdown`.\n"
HEADER = ("name", "kind", "paper", "summary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # "scheme", as in scheme=rope, lists the schemes too.
    plural = {folder: group for group, folder in GROUPS.items()}
    parser.add_argument(
        "group",
        nargs="?",
        type=lambda name: plural.get(name, name),
        choices=GROUPS,
        help="the group to list, by default all",
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    settings = parser("list").parse_args(arguments)
    groups = [settings.group] if settings.group else list(GROUPS)
    if settings.markdown and len(groups) > 1:
        print(TITLE)
    for place, group in enumerate(groups):
        if len(groups) > 1:
            print("\n" * (place > 0) + (f"## {group}\n" if settings.markdown else f"{group}:"))
        print(table(GROUPS[group], settings.markdown))
    return 0


def table(group: str, markdown: bool = False) -> str:
    """Formats the choices of a group as aligned text or as Markdown; columns without entries are left out."""
    found = [choice(group, name) for name in names(group)]
    rows = [(one.name, one.kind, one.paper, one.summary) for one in found]
    used = [column for column in zip(HEADER, *rows, strict=True) if any(column[1:])]
    header, *lines = zip(*used, strict=True)
    return (text_table.markdown if markdown else text_table.aligned)(header, lines)
