"""Redraw every table and figure from rows alone: python scripts/figures.py."""

from pathlib import Path

from posbench import experiment
from posbench.config import choice, launch
from posbench.errors import DataError
from posbench.settings import FiguresScript


def main(script: FiguresScript) -> None:
    """All experiments of the results folder, or those that are named."""
    results = Path(script.results)
    named = [results / name for name in script.experiments]
    folders = named or experiment.experiments(results)
    if not folders:
        raise DataError(f"no experiment in {results.absolute()}: run make demo first, or give results=FOLDER")
    for folder in folders:
        drawn = experiment.draw(folder, choice)
        print(f"{len(drawn)} tables and figures in {folder}")


if __name__ == "__main__":
    launch("figures", main)
