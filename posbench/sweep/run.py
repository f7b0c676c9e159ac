"""Runs a plan: trains and evaluates what is missing, and collects the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.evaluation.oom_report import oom_report_lines
from posbench.plan.cell import Cell, ModelPlan, Plan
from posbench.results import gate
from posbench.runtime.distributed import world
from posbench.sweep import launcher
from posbench.sweep.estimates import format_duration, with_estimates
from posbench.sweep.jobs import Job, ResultsFolder
from posbench.sweep.progress import open_progress_display
from posbench.sweep.time_budget import TimeBudget


def pending_jobs(
    plan: Plan, results_folder: ResultsFolder, runtime: RuntimeSettings, experiment: str
) -> list[Job]:
    """Returns the jobs that are not done: trainings, and one job for the cells of each model and extension."""
    required = {cell.model.id for cell in plan.cells if not results_folder.is_evaluated(cell, runtime)}
    # A model whose cells are all measured is not required. A model without cells is: the plan is to train it.
    required |= {model.id for model in plan.models} - {cell.model.id for cell in plan.cells}
    missing: list[ModelPlan] = []
    # A base model stands before the models that are fine-tuned from it. Other models are not read, which takes time.
    for model in reversed(plan.all_models):
        if model.id in required and not results_folder.is_trained(model):
            missing.insert(0, model)
            required |= {model.fine_tuning.base_model.id} if model.fine_tuning else set()
    jobs = [Job(experiment, model) for model in missing]
    for _, cells in groupby(plan.cells, key=lambda cell: (cell.model.id, cell.extension.name)):
        todo = tuple(cell for cell in cells if not results_folder.is_evaluated(cell, runtime))
        if todo:
            jobs.append(Job(experiment, todo[0].model, todo))
    return jobs


@dataclass(frozen=True)
class SweepSummary:
    """The number of jobs that a run has completed, and the number that did not fit in its time budget."""

    n_completed: int
    n_remaining: int = 0


def run_plan(
    plan: Plan, runtime: RuntimeSettings, experiment: str, say: Callable[[str], None] = print
) -> SweepSummary:
    """Runs the jobs of a plan that are not done.

    Args:
        experiment: the group of its runs on W&B.
        say: called with each line for the user.

    Raises:
        PosbenchError: if some jobs failed, after all others have run.
    """
    here = world()
    if not here.is_main_process:
        say = lambda text: None  # noqa: E731
    time_budget = TimeBudget(runtime.max_minutes)
    results_folder = ResultsFolder.from_runtime(runtime)
    results_folder.prepare()
    launcher.check_runtime(runtime)
    for line in plan.skipped:
        say(f"left out: {line}")
    jobs = with_estimates(pending_jobs(plan, results_folder, runtime, experiment), runtime)
    trainings = sum(not job.cells for job in jobs)
    cells = sum(len(job.cells) for job in jobs)
    workers = len(launcher.worker_devices(runtime, len(jobs)))
    about = f"about {format_duration(total_seconds(jobs) / workers)} on {workers} worker{'s' if workers > 1 else ''}"
    say(
        f"{len(plan.all_models)} models, {trainings} to train; {len(plan.cells)} cells, {cells} to measure"
        + (f"; {about}" if jobs else "")
    )
    if not jobs:
        return SweepSummary(0)
    time_budget.check(jobs)
    with open_progress_display(len(jobs)) as progress:
        failures, remaining = here.broadcast_object(launcher.run_jobs(jobs, runtime, progress, time_budget))
    for line in oom_report_lines(plan.cells, results_folder.store):
        say(line)
    if failures:
        raise PosbenchError(f"{len(failures)} jobs failed, the first: {failures[0]}; run again to retry them")
    if remaining:
        say(
            f"time is up: {len(remaining)} of {len(jobs)} jobs are left, about {format_duration(total_seconds(remaining) / workers)} "
            f"on {workers} worker{'s' if workers > 1 else ''}; the same command continues"
        )
    return SweepSummary(len(jobs) - len(remaining), len(remaining))


def total_seconds(jobs: Iterable[Job]) -> float:
    """Returns the sum of the estimated seconds of jobs."""
    return sum(sum(job.estimated_seconds) for job in jobs)


def collect_rows(cells: Iterable[Cell], results_folder: ResultsFolder) -> pd.DataFrame:
    """Returns the rows of cells in order, with the labels of the current configs and the gate of results.gate applied."""
    cells = list(cells)
    rows, counts = results_folder.store.collect([cell.id for cell in cells])
    labels = {
        "scheme": [cell.model.settings.scheme.name for cell in cells],
        "extension": [cell.extension.name for cell in cells],
        "model_size": [cell.model.settings.size.name for cell in cells],
        "corpus": [cell.model.settings.data.name for cell in cells],
    }
    return gate.apply_gate(
        rows.assign(**{name: np.repeat(of_cell, counts) for name, of_cell in labels.items()})
    )
