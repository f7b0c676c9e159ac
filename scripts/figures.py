"""Redraw every table and figure from rows alone: python scripts/figures.py."""

from pathlib import Path

from posbench.config.hydra_app import load_option, run_app
from posbench.config.schema import FiguresScript
from posbench.errors import DataError
from posbench.report import experiment


def main(script: FiguresScript) -> None:
    """All experiments of the results folder, or those that are named."""
    results = Path(script.results_dir)
    named = [results / name for name in script.experiments]
    folders = named or experiment.find_experiments(results)
    if not folders:
        raise DataError(
            f"no experiment in {results.absolute()}: run make demo first, or give results_dir=FOLDER"
        )
    for folder in folders:
        drawn = experiment.draw_report(folder, load_option)
        print(f"{len(drawn)} tables and figures in {folder}")


if __name__ == "__main__":
    run_app("figures", main)
