"""Runs a plan: writes it into the results folder, starts workers, and shows their progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.evaluation.oom_report import oom_report_lines
from posbench.evaluation.results_folder import ResultsFolder
from posbench.instantiate import allowed_packages
from posbench.plan.cell import Plan
from posbench.plan.jobs import plan_jobs
from posbench.plan.sweep_file import Assignment, Sweep, make_sweep, write_sweep
from posbench.runtime.device import pick_device
from posbench.runtime.distributed import world
from posbench.runtime.signals import interrupts, stop_flag
from posbench.sweep import launch_local, launch_ray, launch_slurm
from posbench.sweep.state import State, StateReader
from posbench.sweep.status import Board, format_cost
from posbench.sweep.worker import Worker, deadline_of, set_device
from posbench.tracking.tracker import check_tracker
from posbench.training import compile

LAUNCHERS = {"local": launch_local.workers, "slurm": launch_slurm.workers, "ray": launch_ray.workers}


@dataclass(frozen=True)
class SweepSummary:
    """The number of jobs that a run has completed, and the number that are left for the next run."""

    n_completed: int
    n_remaining: int = 0


def check_runtime(runtime: RuntimeSettings) -> None:
    """Raises ConfigError for runtime settings that are not possible here, before anything starts."""
    if runtime.launcher in ("inline", "local"):  # on a cluster, only the workers know the device
        compile.should_compile(runtime.compile, pick_device(runtime.device))
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
    deadline = deadline_of(runtime)
    say = say if world().is_main_process else lambda text: None
    check_runtime(runtime)
    for line in plan.skipped:
        say(f"left out: {line}")
    results_folder = ResultsFolder.from_runtime(runtime)
    sweep = make_sweep(experiment, plan, plan_jobs(plan, selects_rate), runtime)
    reader = StateReader(sweep, results_folder, runtime if runtime.launcher in ("inline", "local") else None)

    def first_state() -> State:
        if not dry_run:
            results_folder.prepare()
            reader.verify()
        return reader.read()

    before = world().from_main(first_state)
    jobs = before.left
    trainings = sum(not job.cells for job in jobs)
    cells = sum(cell not in reader.cells for job in jobs for cell in job.cells)
    say(
        f"{len(plan.all_models)} models, {trainings} to train; {len(plan.cells)} cells, {cells} to measure"
        + (f"; {format_cost(jobs)}" if jobs else "")
    )
    if dry_run:
        to_do = [job for job in jobs if job not in before.running]
        for kind, listed in {"done": before.done, "running": before.running, "to do": to_do}.items():
            for job in listed:
                say(f"{kind}: {job.label}, {format_cost([job])}")
    if dry_run or not jobs:
        return SweepSummary(0, len(jobs))
    if world().is_main_process:
        write_sweep(results_folder.path, sweep)
    with ExitStack() as stack, interrupts():
        board = stack.enter_context(Board(reader, jobs)) if world().is_main_process else None
        refresh = board.refresh if board else lambda: None
        launch(sweep, runtime, reader, len(jobs), deadline, refresh)
    if not runtime.wait and reader.read().left:
        say(
            f"{len(jobs)} jobs are submitted; posbench status {results_folder.path} shows them, and the same command "
            "collects"
        )
        return SweepSummary(0, len(jobs))
    state = world().from_main(reader.read)
    for line in oom_report_lines(plan.cells, results_folder.store):
        say(line)
    failed = {job: record for job, record in state.failed.items() if record != before.failed.get(job)}
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
    jobs: int,
    deadline: float,
    refresh: Callable[[], None],
) -> None:
    """Starts workers as the settings say and returns when they have ended, or at once with runtime.wait=false."""
    results_folder, run = reader.results_folder, uuid4().hex[:8]
    is_one = runtime.launcher == "local" and len(launch_local.devices(runtime, jobs)) == 1
    if is_one or runtime.launcher == "inline" or world().world_size > 1:
        worker = Worker(sweep, results_folder, set_device(runtime), run, deadline, refresh)
        with stop_flag() as should_stop:
            worker.work(should_stop)
        return
    assignment = Assignment(results_folder.path.absolute(), sweep.id, run, allowed_packages())
    with LAUNCHERS[runtime.launcher](assignment, runtime, jobs, deadline) as wait:
        # Workers that still wait for a place find nothing to do once no job is left.
        while runtime.wait and reader.state.left and wait(0.5):
            refresh()
