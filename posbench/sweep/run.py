"""Runs a plan: writes it into the results folder, starts workers, and shows their progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, PosbenchError
from posbench.evaluation.evaluator import processes_per_gpu
from posbench.evaluation.oom_report import oom_report_lines
from posbench.evaluation.results_folder import ResultsFolder
from posbench.instantiate import allowed_packages
from posbench.plan.cell import Plan
from posbench.plan.job import Job
from posbench.plan.jobs import plan_jobs
from posbench.plan.sweep_file import Assignment, make_sweep, write_sweep
from posbench.runtime.device import pick_device
from posbench.runtime.distributed import world
from posbench.runtime.signals import interrupts, stop_flag
from posbench.sweep import launch_local, launch_ray, launch_slurm
from posbench.sweep.state import DONE, FAILED, LEFT, RUNNING, StateReader
from posbench.sweep.status import Board, format_cost
from posbench.sweep.worker import Worker, deadline_of, set_device
from posbench.tracking.tracker import check_tracker
from posbench.training import checkpoints, compile

LAUNCHERS = {"local": launch_local.workers, "slurm": launch_slurm.workers, "ray": launch_ray.workers}


@dataclass(frozen=True)
class SweepSummary:
    """The number of jobs that a run has completed, and the number that are left for the next run."""

    n_completed: int
    n_remaining: int = 0


def check_runtime(runtime: RuntimeSettings) -> None:
    """Raises ConfigError for runtime settings that are not possible, before anything starts."""
    if world().world_size > 1 and (
        runtime.launcher in ("slurm", "ray") or runtime.num_workers or runtime.workers_per_gpu > 1
    ):
        raise ConfigError(
            f"runtime.launcher {runtime.launcher}, num_workers {runtime.num_workers} and workers_per_gpu "
            f"{runtime.workers_per_gpu} change nothing under torchrun, whose processes do the work: remove them"
        )
    if runtime.launcher in ("inline", "local"):
        device = pick_device(runtime.device)
        compile.should_compile(runtime.compile, device)
        shares = device.type == "cuda" and not runtime.num_workers
        if runtime.workers_per_gpu > 1 and not shares:
            raise ConfigError(
                f"runtime.workers_per_gpu changes nothing with runtime.device {runtime.device}, which is {device.type} "
                f"here, and runtime.num_workers {runtime.num_workers}: remove it, or give runtime.device=cuda and "
                "runtime.num_workers=0"
            )
    check_tracker(runtime)
    ResultsFolder.from_runtime(runtime).check()


def check_training_kernel(runtime: RuntimeSettings) -> None:
    """Raises ConfigError if the kernel flex, which has no backward pass on the CPU, would train there."""
    if pick_device(runtime.device).type == "cpu":
        raise ConfigError(
            "runtime.kernel=flex cannot train here, because the kernel flex has no backward pass on the CPU: give "
            "runtime.kernel=dense or auto"
        )


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
        PosbenchError: if failed jobs are left, after all others have run.
    """
    deadline = deadline_of(runtime)
    say = say if world().is_main_process else lambda text: None
    check_runtime(runtime)
    for line in plan.skipped:
        say(f"left out: {line}")
    results_folder = ResultsFolder.from_runtime(runtime)
    sweep = make_sweep(experiment, plan, plan_jobs(plan, selects_rate), runtime)
    reader = StateReader(sweep, results_folder, runtime if runtime.launcher in ("inline", "local") else None)

    def first_state() -> dict[str, list[Job]]:
        if not dry_run:
            results_folder.prepare()
            reader.verify()
        return reader.read().jobs

    reader.jobs = world().from_main(first_state)
    jobs = reader.left
    trainings = sum(not job.cells for job in jobs)
    if trainings and runtime.kernel == "flex" and runtime.launcher in ("inline", "local"):
        check_training_kernel(runtime)
    cells = sum(cell not in reader.cells for job in jobs for cell in job.cells)
    say(
        f"{len(plan.all_models)} models, {trainings} to train; {len(plan.cells)} cells, {cells} to measure"
        + (f"; {format_cost(jobs)}" if jobs else "")
    )
    if dry_run:
        for kind in (DONE, *LEFT):
            for job in reader.jobs[kind]:
                say(f"{kind if kind in (DONE, RUNNING) else 'to do'}: {job.label}, {format_cost([job])}")
    if dry_run or not jobs:
        return SweepSummary(0, len(jobs))
    if world().is_main_process:
        write_sweep(results_folder.path, sweep)
    with ExitStack() as stack, interrupts():
        board = stack.enter_context(Board(reader, jobs)) if world().is_main_process else None
        launch(reader, deadline, board.refresh if board else lambda: None)
    reader.jobs = world().from_main(lambda: reader.read().jobs)
    if not runtime.wait and reader.left:
        shown = f"posbench status {results_folder.path} shows them, and the same command collects"
        say(f"{len(jobs)} jobs are submitted; {shown}")
        return SweepSummary(0, len(jobs))
    for line in diverged_lines(plan, jobs, results_folder):
        say(line)
    for line in oom_report_lines(plan.cells, results_folder.store):
        say(line)
    failed = reader.jobs[FAILED]
    if failed and world().is_main_process:
        first = f"{failed[0].label}: {reader.record(failed[0].name)['error']}"
        count = "1 job failed" if len(failed) == 1 else f"{len(failed)} jobs failed, the first"
        raise PosbenchError(f"{count}: {first}; run again to retry")
    if reader.left:
        reason = "time is up" if time.monotonic() >= deadline else "the workers have ended"
        say(f"{reason}: {len(reader.left)} of {len(jobs)} jobs are left; the same command continues")
    return SweepSummary(len(jobs) - len(reader.left), len(reader.left))


def diverged_lines(plan: Plan, jobs: Sequence[Job], results_folder: ResultsFolder) -> Iterator[str]:
    """Yields a line for each model that was trained by these jobs until its loss was not finite."""
    trained = {job.model for job in jobs if not job.cells}
    for model in (one for one in plan.all_models if one.id in trained):
        metadata = checkpoints.read_metadata(results_folder.model_dir(model.id) / "final")
        if metadata is not None and metadata["status"] == "diverged":
            yield (
                f"diverged: {model.label}: the loss is not finite after {metadata['step']} steps; lower train.lr, or look "
                "at the settings of its scheme"
            )


def launch(reader: StateReader, deadline: float, refresh: Callable[[], None]) -> None:
    """Starts workers as the settings say and returns when they have ended, or at once with runtime.wait=false."""
    runtime, run, jobs = reader.sweep.runtime, uuid4().hex[:8], len(reader.left)
    is_one = runtime.launcher == "local" and len(launch_local.devices(runtime, jobs)) == 1
    if is_one or runtime.launcher == "inline" or world().world_size > 1:
        reader.runtime = set_device(runtime)
        worker = Worker(reader, reader.runtime, run, deadline)
        worker.on_change = refresh
        with stop_flag() as should_stop:
            worker.work(should_stop)
        return
    folder = reader.results_folder.path.absolute()
    # Other machines have other clocks; their workers count from their own start.
    deadline = deadline if runtime.launcher == "local" else math.inf
    retries = bool(reader.jobs[FAILED])
    assignment = Assignment(
        folder, reader.sweep.id, run, allowed_packages(), deadline, retries, processes_per_gpu(runtime)
    )
    with LAUNCHERS[runtime.launcher](assignment, runtime, jobs) as wait:
        # Workers that still wait for a place find nothing to do once no job is left.
        while runtime.wait and reader.left and wait(0.5):
            refresh()
