"""Redraws every table and figure from stored rows. It needs neither torch nor the models.

Without settings, all experiments of the results folder are drawn again, except those that are up to date.

most used settings:
  experiments=[demo]                     these experiments only
  results_dir=results/published          another results folder, by default results

examples:
  posbench figures
  posbench figures 'experiments=[demo,finetune]'
  posbench figures results_dir=results/published
"""

from collections.abc import Sequence
from pathlib import Path

from posbench.commands import settings_command
from posbench.config.schema import FiguresScript, ReportScript
from posbench.config.validation import check_given_list
from posbench.errors import DataError


def main(arguments: Sequence[str]) -> int:
    return settings_command.main("figures", __doc__, run, arguments)


def run(script: FiguresScript) -> None:
    """Redraws all experiments of the results folder, or those that are named."""
    folders = experiment_folders(script)
    from posbench.config.hydra_app import load_option
    from posbench.report.experiment import draw_report

    for folder in folders:
        drawn = draw_report(folder, load_option)
        print(f"{len(drawn)} tables and figures in {folder}")


def experiment_folders(script: FiguresScript | ReportScript) -> list[Path]:
    """Returns the folders of the named experiments, or of all.

    Raises:
        DataError: a folder is missing, or there is none.
    """
    from posbench.config.hydra_app import given_keys

    results, names = Path(script.results_dir), script.experiments
    check_given_list("experiments", names, given_keys())
    check_results_folder(results)
    for name in names:
        if not (results / name).is_dir():
            raise DataError(f"no folder {results / name}: give experiments that posbench sweep has written")
    folders = [results / name for name in names]
    if not folders:
        from posbench.report.experiment import ROWS_FILE, find_experiments

        if (results / ROWS_FILE).is_file():
            raise DataError(
                f"{results} is the folder of an experiment: give the results folder that holds it, "
                f"results_dir={results.absolute().parent} 'experiments=[{results.absolute().name}]'"
            )
        # Rows without their settings are found too, so that a message names what is missing.
        folders = find_experiments(results) or sorted(path.parent for path in results.glob(f"*/{ROWS_FILE}"))
    if not folders:
        raise DataError(
            f"no experiment in {results.absolute()}: run posbench sweep experiment=demo first, or give results_dir=FOLDER"
        )
    return folders


def check_results_folder(results: Path) -> None:
    """Raises DataError if a results folder to read is missing."""
    if not results.is_dir():
        raise DataError(
            f"no results folder {results.absolute()}: run posbench sweep experiment=demo first, or give results_dir=FOLDER"
        )
