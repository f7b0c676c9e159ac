"""Runs a plan: writes it into the results folder, starts workers, shows their progress, and collects the rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import pandas as pd

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, PosbenchError
from posbench.evaluation.oom_report import oom_report_lines
from posbench.evaluation.results_folder import ResultsFolder
from posbench.instantiate import allowed_packages
from posbench.plan.cell import Cell, Plan
from posbench.plan.jobs import plan_jobs
from posbench.plan.sweep_file import Assignment, Sweep, make_sweep, write_sweep
from posbench.results import gate
from posbench.runtime.device import pick_device
from posbench.runtime.distributed import world
from posbench.runtime.signals import interrupts, stop_flag
from posbench.sweep import launch_local
from posbench.sweep.state import State, StateReader
from posbench.sweep.status import Board, format_amount
from posbench.sweep.worker import Worker, set_device
from posbench.tracking.tracker import check_tracker
from posbench.training import compile


@dataclass(frozen=True)
class SweepSummary:
    """The number of jobs that a run has completed, and the number that are left for the next run."""

    n_completed: int
    n_remaining: int = 0


def check_runtime(runtime: RuntimeSettings) -> None:
    """Raises ConfigError for runtime settings that are not possible, before anything starts."""
    if runtime.launcher in ("inline", "local"):
        device = pick_device(runtime.device)
        compile.should_compile(runtime.compile, device)
        shares = device.type == "cuda" and runtime.device in ("auto", "cuda") and not runtime.num_workers
        if runtime.workers_per_gpu > 1 and not shares:
            raise ConfigError(
                f"runtime.workers_per_gpu changes nothing with runtime.device {runtime.device}, which is {device.type} "
                f"here, and runtime.num_workers {runtime.num_workers}: remove it, or give runtime.device=cuda and "
                "runtime.num_workers=0"
            )
    check_tracker(runtime)


def run_plan(
    plan: Plan,
    runtime: RuntimeSettings,
    experiment: str,
    say: Callable[[str], None] = print,
    selects_rate: bool = False,
    dry_run: bool = False,
) -> SweepSummary:
    """Runs the jobs of a plan that are not done.

    Args:
        experiment: the group of its runs in the tracker.
        say: called with each line for the user.
        selects_rate: whether only the models of the best learning rate are measured.
        dry_run: only prints what would be done.

    Raises:
        PosbenchError: if some jobs failed, after all others have run.
    """
    deadline = time.monotonic() + 60 * runtime.max_minutes if runtime.max_minutes else math.inf
    say = say if world().is_main_process else lambda text: None
    check_runtime(runtime)
    for line in plan.skipped:
        say(f"left out: {line}")
    results_folder = ResultsFolder.from_runtime(runtime)
    sweep = make_sweep(experiment, plan, plan_jobs(plan, selects_rate), runtime)
    # On a cluster, only the workers know the device.
    reader = StateReader(sweep, results_folder, runtime if runtime.launcher in ("inline", "local") else None)

    def read_state() -> tuple[State, int]:
        if not dry_run:
            results_folder.prepare()
            reader.verify()
        state = reader.read()
        return state, sum(not reader.has_cell(cell) for job in state.left for cell in job.cells)

    state, cells = world().from_main(read_state)
    jobs = state.left
    trainings = sum(not job.cells for job in jobs)
    say(
        f"{len(plan.all_models)} models, {trainings} to train; {len(plan.cells)} cells, {cells} to measure"
        + (f"; {amounts(jobs)}" if jobs else "")
    )
    if dry_run:
        for line in job_lines(state):
            say(line)
        return SweepSummary(0, len(jobs))
    if not jobs:
        return SweepSummary(0)
    if world().is_main_process:
        write_sweep(results_folder.path, sweep)
    run, failed_before = uuid4().hex[:8], state.failed
    with Board(reader, jobs) if world().is_main_process else _silent() as board, interrupts():
        launch(sweep, runtime, reader, run, len(jobs), deadline, board.refresh)
    if not runtime.wait and reader.read().left:
        say(
            f"{len(jobs)} jobs are submitted; posbench status {results_folder.path} shows them, and the same command collects"
        )
        return SweepSummary(0, len(jobs))
    state = world().from_main(reader.read)
    for line in oom_report_lines(plan.cells, results_folder.store):
        say(line)
    failed = {job: record for job, record in state.failed.items() if record != failed_before.get(job)}
    if failures := [f"{job.label}: {record['error']}" for job, record in failed.items()]:
        raise PosbenchError(f"{len(failures)} jobs failed, the first: {failures[0]}; run again to retry them")
    if state.left:
        reason = "time is up" if runtime.max_minutes else "the workers have ended"
        say(f"{reason}: {len(state.left)} of {len(jobs)} jobs are left; the same command continues")
    return SweepSummary(len(jobs) - len(state.left), len(state.left))


def launch(
    sweep: Sweep,
    runtime: RuntimeSettings,
    reader: StateReader,
    run: str,
    jobs: int,
    deadline: float,
    refresh: Callable[[], None],
) -> None:
    """Starts workers as the settings say and returns when they have ended, or at once with runtime.wait=false."""
    results_folder = reader.results_folder
    assignment = Assignment(results_folder.path.absolute(), sweep.id, run, allowed_packages())
    devices = launch_local.devices(runtime, jobs) if runtime.launcher == "local" else [runtime.device]
    if (
        world().world_size > 1
        or runtime.launcher == "inline"
        or (runtime.launcher == "local" and len(devices) == 1)
    ):
        worker = Worker(sweep, results_folder, set_device(runtime), run, deadline, refresh)
        with stop_flag() as should_stop:
            worker.work(should_stop)
        return
    if runtime.launcher == "local":
        starting = launch_local.workers(assignment, devices, deadline)
    elif runtime.launcher == "slurm":
        from posbench.sweep import launch_slurm

        starting = launch_slurm.workers(assignment, runtime.slurm, jobs)
    else:
        from posbench.sweep import launch_ray

        starting = launch_ray.workers(assignment, runtime.ray, jobs, runtime.wait)
    with starting as wait:
        while runtime.wait and wait(0.5):
            refresh()
            if runtime.launcher == "slurm" and not reader.state.left:
                break  # workers that still wait in the queue find nothing to do


class _Silent:
    def refresh(self) -> None:
        """Shows nothing."""


@contextmanager
def _silent() -> Iterator[_Silent]:
    yield _Silent()


def amounts(jobs: Iterable[object]) -> str:
    """Returns the tokens and operations of jobs."""
    tokens = sum(job.tokens for job in jobs)  # type: ignore[attr-defined]
    flops = sum(job.flops for job in jobs)  # type: ignore[attr-defined]
    return f"{format_amount(tokens, 'tokens')}, {format_amount(flops, 'FLOP')}"


def job_lines(state: State) -> Iterator[str]:
    """Yields a line for each job with its label, its cost and whether it is done."""
    for kind, jobs in {"done": state.done, "running": state.running, "to do": state.left}.items():
        for job in jobs:
            if kind != "to do" or job not in state.running:
                yield f"{kind}: {job.label}, {amounts([job])}"


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
