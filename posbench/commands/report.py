"""Writes the results of a folder as one HTML file, to be opened in a browser. It needs neither torch nor a network.

It has a leaderboard that sorts, filters and searches, curves with intervals, every table, a section for each scheme with
its formula, picture, properties and cost, and the command behind every number.

most used settings:
  results_dir=results/published          another results folder, by default results
  experiments=[demo]                     these experiments only
  out=report.html                        another file, by default report.html in the results folder

examples:
  posbench report
  posbench report results_dir=results/published out=report.html
  posbench report 'experiments=[demo,finetune]'
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from posbench.commands import settings_command
from posbench.config.schema import ReportScript
from posbench.errors import ConfigError

if TYPE_CHECKING:
    from posbench.report.html.results import Description


def main(arguments: Sequence[str]) -> int:
    return settings_command.main("report", __doc__, run, arguments)


def run(script: ReportScript) -> None:
    """Writes the report of all experiments of the results folder, or of those that are named."""
    from posbench.commands.figures import experiment_folders

    results = Path(script.results_dir)
    folders = experiment_folders(script)
    out = Path(script.out) if script.out else results / "report.html"
    check_out(out)
    from posbench.config.hydra_app import load_option
    from posbench.report.html.writer import write_html

    places = (results / "properties", results / "published" / "properties")
    properties = next((place for place in places if place.is_dir()), places[0])
    size = write_html(folders, out, load_option, described, properties)
    print(f"{out}: {len(folders)} experiment{'s' * (len(folders) != 1)}, {size / 2**20:.1f} MiB")


def check_out(out: Path) -> None:
    """Raises ConfigError for a file that cannot be written because of its folder, or because it is a folder."""
    if out.is_dir():
        raise ConfigError(f"out={out} is a folder: give a file, such as out={out / 'report.html'}")
    if not out.parent.is_dir():
        raise ConfigError(
            f"out={out}: no folder {out.parent.absolute()}; make it first, or give another file"
        )


@cache
def described(group: str, name: str) -> Description | None:
    """Describes a choice as `posbench describe` does; None if the group has no choice of this name."""
    from posbench.commands import describe
    from posbench.commands.catalog import choice, names
    from posbench.report.html.results import Description

    if name not in names(group):
        return None
    one = choice(group, name)
    parts = [(part.name, part.module_doc, part.doc) for part in describe.definitions(one)]
    commands = describe.uses(group, name)
    summary = one.header or one.summary
    return Description(
        name, one.kind, describe.address(one.paper), summary, parts, describe.settings(one), commands
    )
