"""Sets published numbers beside stored rows: each claim of configs/claim with ours, its interval and a verdict.

Writes reproductions.md and reproductions.csv to the results folder. It needs neither torch nor the models; what has no
rows is listed with the command that makes them.

most used settings:
  results_dir=results/published          another results folder, by default results

examples:
  posbench reproductions
  posbench reproductions results_dir=results/published
"""

from collections.abc import Sequence
from pathlib import Path

from posbench.commands import settings_command
from posbench.commands.figures import check_results_folder
from posbench.config.schema import ReproductionsScript


def main(arguments: Sequence[str]) -> int:
    return settings_command.main("reproductions", __doc__, run, arguments)


def run(script: ReproductionsScript) -> None:
    """Writes the page of reproductions of a results folder."""
    results = Path(script.results_dir)
    check_results_folder(results)
    from posbench.config.hydra_app import load_group
    from posbench.report.reproductions.page import write

    for path in write(load_group("claim"), results):
        print(path)
