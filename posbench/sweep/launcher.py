"""Running jobs: in this process, in several with cores or GPUs divided among them, or in step on torchrun's ranks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, PosbenchError, unknown
from posbench.kernels.dispatcher import NAMES
from posbench.runtime.device import pick_device
from posbench.runtime.distributed import LostError, world
from posbench.sweep.jobs import Job, Tell, Worker
from posbench.sweep.scheduler import Board, Queue
from posbench.sweep.time_budget import Allowance
from posbench.sweep.worker_pool import local, on_signal
from posbench.tracking.wandb import WandbSettings
from posbench.training import compile
from posbench.training.trainer import Stopped

LAUNCHERS = ("inline", "local")


def check(runtime: RuntimeSettings) -> None:
    """Raise ConfigError for a runtime that cannot be, before anything starts."""
    if runtime.launcher not in LAUNCHERS:
        raise unknown("launcher", runtime.launcher, LAUNCHERS)
    if runtime.kernel not in NAMES:
        raise unknown("kernel", runtime.kernel, NAMES)
    compile.wanted(runtime.compile, pick_device(runtime.device))
    WandbSettings(runtime.wandb)
    for name in ("threads", "per_gpu", "checkpoint_every", "tokens_per_pass"):
        if getattr(runtime, name) < 1:
            raise ConfigError(f"runtime.{name} {getattr(runtime, name)}: give at least 1")


def run(
    jobs: Sequence[Job], runtime: RuntimeSettings, board: Board, allowance: Allowance | None = None
) -> tuple[list[str], list[Job]]:
    """Run all jobs for which there is time; a line for each that failed, and those that are left."""
    queue = Queue(jobs, allowance)
    devices = places(runtime, len(jobs))
    if world().size > 1:
        in_step(queue, runtime, board)
    elif runtime.launcher == "inline" or len(devices) == 1:
        inline(queue, replace(runtime, device=devices[0]), board)
    else:
        local(queue, [replace(runtime, device=device) for device in devices], board)
    return queue.failures, queue.left


def places(runtime: RuntimeSettings, most: int) -> list[str]:
    """The device of each worker: `per_gpu` a GPU, or one for every `threads` cores."""
    gpus = torch.cuda.device_count() if runtime.device in ("auto", "cuda") else 0
    if runtime.launcher == "inline":
        return [runtime.device]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = runtime.workers or gpus * runtime.per_gpu or max(1, cores // runtime.threads)
    workers = max(1, min(workers, most))
    return [f"cuda:{worker % gpus}" if gpus else runtime.device for worker in range(workers)]


def inline(queue: Queue, runtime: RuntimeSettings, board: Board) -> None:
    """One job after another, here."""
    worker, stopping = Worker(runtime), on_signal()
    while (job := queue.wait()) is not None:
        started = time.monotonic()
        board.started(job)
        outcome, why = attempted(worker, job, partial(board.told, job), stopping)
        queue.settle(job, board, outcome, time.monotonic() - started, why)


def in_step(queue: Queue, runtime: RuntimeSettings, board: Board) -> None:
    """The same job on every rank at once, in the order in which rank 0 takes them."""
    here, stopping = world(), on_signal()
    device = (
        f"cuda:{here.local}" if runtime.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
    )
    quiet = runtime if here.leads else replace(runtime, wandb="disabled")
    worker = Worker(replace(quiet, device=device))
    while (job := here.agreed(queue.wait() if here.leads else None)) is not None:
        started = time.monotonic()
        if here.leads:
            board.started(job)
        told = partial(board.told, job) if here.leads else lambda *_: None
        outcome, why = attempted(worker, job, told, stopping)
        if here.leads:
            queue.settle(job, board, outcome, time.monotonic() - started, why)


def attempted(worker: Worker, job: Job, tell: Tell, stopping: Callable[[], bool]) -> tuple[str, str]:
    """How a job ended, and why if it failed."""
    try:
        return worker.run(job, tell, stopping), ""
    except Stopped:
        raise KeyboardInterrupt from None
    except LostError:  # no job can go on without the other ranks
        raise
    except PosbenchError as error:
        return "failed", str(error)
