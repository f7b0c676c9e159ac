"""Shows the sweeps of a results folder: what is done, running and where, failed and why, and left, with the time left.

Everything is read from the folder, so it works from any machine and at any time.

examples:
  posbench status
  posbench status results/mine
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from posbench.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results_dir", type=Path, nargs="?", default=Path("results"), help="(default: %(default)s)"
    )


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    folder = parser("status").parse_args(arguments).results_dir
    from posbench.evaluation.results_folder import ResultsFolder
    from posbench.plan.sweep_file import find_sweeps, read_sweep
    from posbench.sweep.state import FAILED, RUNNING, StateReader
    from posbench.sweep.status import report

    found = find_sweeps(folder)
    if not found:
        raise DataError(f"no sweep in {folder}: run posbench sweep first, or give a results folder")
    shown: dict[str, str] = {}
    names: set[str] = set()
    for name in found:  # the last written first
        try:
            sweep = read_sweep(folder, name)
        except DataError as error:  # such as one of another version
            print(f"left out: {error}")
            continue
        reader = StateReader(sweep, ResultsFolder(folder))
        reader.read()
        # An older sweep of the same name, such as another training, is shown while it runs or has failed.
        if sweep.name not in names or reader.jobs[RUNNING] or reader.jobs[FAILED]:
            shown[name] = f"{sweep.name}: " + "\n".join(report(reader))
        names.add(sweep.name)
    for text in reversed(shown.values()):
        print(text)
    return 0
