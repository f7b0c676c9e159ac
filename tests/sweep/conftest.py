"""Sweeps of small plans in a results folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.config.schema import RuntimeSettings
from posbench.evaluation.results_folder import ResultsFolder
from posbench.plan.cell import Cell, Plan
from posbench.plan.jobs import plan_jobs
from posbench.plan.sweep_file import Sweep, make_sweep, write_sweep


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    """An empty results folder."""
    folder = ResultsFolder(tmp_path / "results")
    folder.prepare()
    return folder


@pytest.fixture
def write(results: ResultsFolder) -> Callable[..., Sweep]:
    """Writes the sweep of cells into the results folder."""

    def write(cells: list[Cell], selects_rate: bool = False, **runtime: object) -> Sweep:
        models = {one.model.id: one.model for one in cells if not one.model.fine_tuning}
        plan = Plan(list(models.values()), cells, [])
        sweep = make_sweep(
            "test", plan, plan_jobs(plan, selects_rate), RuntimeSettings(device="cpu", **runtime)
        )
        write_sweep(results.path, sweep)
        return sweep

    return write
