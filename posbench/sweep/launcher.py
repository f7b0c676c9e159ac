"""Runs jobs in this process, in worker processes that share the cores or GPUs, or in step on the ranks of torchrun."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, PosbenchError, unknown
from posbench.kernels.dispatcher import NAMES
from posbench.runtime.device import pick_device
from posbench.runtime.distributed import RankLostError, world
from posbench.runtime.signals import Interrupted, interrupts, stop_flag
from posbench.sweep.job_queue import JobQueue
from posbench.sweep.jobs import Job, ProgressCallback, Worker
from posbench.sweep.progress import ProgressDisplay
from posbench.sweep.time_budget import TimeBudget
from posbench.sweep.worker_pool import run_in_processes
from posbench.tracking.tracker import check_tracker
from posbench.training import compile
from posbench.training.trainer import TrainingInterrupted

LAUNCHERS = ("inline", "local")


def check_runtime(runtime: RuntimeSettings) -> None:
    """Raises ConfigError for runtime settings that are not possible, before anything starts."""
    if runtime.launcher not in LAUNCHERS:
        raise unknown("launcher", runtime.launcher, LAUNCHERS)
    if runtime.kernel not in NAMES:
        raise unknown("kernel", runtime.kernel, NAMES)
    compile.should_compile(runtime.compile, pick_device(runtime.device))
    check_tracker(runtime)
    for name in ("num_threads", "workers_per_gpu", "max_tokens_per_batch"):
        if getattr(runtime, name) < 1:
            raise ConfigError(f"runtime.{name} {getattr(runtime, name)}: give at least 1")


def run_jobs(
    jobs: Sequence[Job],
    runtime: RuntimeSettings,
    progress: ProgressDisplay,
    time_budget: TimeBudget | None = None,
) -> tuple[list[str], list[Job]]:
    """Runs the jobs that fit in the time budget; returns a line for each that failed, and the jobs that are left."""
    queue = JobQueue(jobs, time_budget)
    devices = worker_devices(runtime, len(jobs))
    with interrupts():
        if world().world_size > 1:
            run_on_ranks(queue, runtime, progress)
        elif runtime.launcher == "inline" or len(devices) == 1:
            run_inline(queue, replace(runtime, device=devices[0]), progress)
        else:
            run_in_processes(queue, [replace(runtime, device=device) for device in devices], progress)
    return queue.failures, queue.remaining


def worker_devices(runtime: RuntimeSettings, max_workers: int) -> list[str]:
    """Returns the device of each worker: `workers_per_gpu` workers a GPU, or one for every `num_threads` cores."""
    gpus = torch.cuda.device_count() if runtime.device in ("auto", "cuda") else 0
    if runtime.launcher == "inline":
        return [runtime.device]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = runtime.num_workers or gpus * runtime.workers_per_gpu or max(1, cores // runtime.num_threads)
    workers = max(1, min(workers, max_workers))
    return [f"cuda:{worker % gpus}" if gpus else runtime.device for worker in range(workers)]


def run_inline(queue: JobQueue, runtime: RuntimeSettings, progress: ProgressDisplay) -> None:
    """Runs one job after another in this process."""
    worker = Worker(runtime)
    while (job := queue.next_blocking()) is not None:
        started = time.monotonic()
        progress.job_started(job)
        outcome, error = run_job(worker, job, partial(progress.job_progress, job))
        queue.record_outcome(job, progress, outcome, time.monotonic() - started, error)


def run_on_ranks(queue: JobQueue, runtime: RuntimeSettings, progress: ProgressDisplay) -> None:
    """Runs the same job on every rank at once; rank 0 chooses the order."""
    here = world()
    device = (
        f"cuda:{here.local_rank}"
        if runtime.device in ("auto", "cuda") and torch.cuda.is_available()
        else "cpu"
    )
    quiet = runtime if here.is_main_process else replace(runtime, tracker="none")
    worker = Worker(replace(quiet, device=device))
    while (job := here.broadcast_object(queue.next_blocking() if here.is_main_process else None)) is not None:
        started = time.monotonic()
        if here.is_main_process:
            progress.job_started(job)
        on_progress = partial(progress.job_progress, job) if here.is_main_process else lambda *_: None
        outcome, error = run_job(worker, job, on_progress)
        if here.is_main_process:
            queue.record_outcome(job, progress, outcome, time.monotonic() - started, error)


def run_job(worker: Worker, job: Job, on_progress: ProgressCallback) -> tuple[str, str]:
    """Runs a job, which SIGINT and SIGTERM stop at its next checkpoint; returns its outcome, and the error if it failed."""
    try:
        with stop_flag() as should_stop, world().fail_together():
            return worker.run(job, on_progress, should_stop), ""
    except TrainingInterrupted:  # the signal came to another rank
        raise Interrupted from None
    except RankLostError:  # no job can go on without the other ranks
        raise
    except PosbenchError as error:
        return "failed", str(error)
