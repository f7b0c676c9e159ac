"""Running jobs: in this process, or in several with cores or GPUs divided among them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from posbench.allowance import Allowance
from posbench.errors import ConfigError, PosbenchError, unknown
from posbench.kernels import NAMES
from posbench.settings import RuntimeSettings
from posbench.train import Stopped, pick_device
from posbench.wandb_mirror import WandbSettings
from posbench.work import Job, Worker

LAUNCHERS = ("inline", "local")
# How long a job waits that another sweep is running already.
BUSY_SECONDS = 2.0


class Board(Protocol):
    """Where progress is shown."""

    def started(self, job: Job) -> None: ...
    def told(self, job: Job, done: int, total: int, note: str) -> None: ...
    def finished(self, job: Job, seconds: float) -> None: ...
    def failed(self, job: Job, why: str) -> None: ...
    def unfinished(self, job: Job) -> None: ...


class Queue:
    """Jobs in order, each ready once the models that it needs are trained; trainings that much hangs on come first.

    Attributes:
        left: those that the allowance has no time for.
    """

    def __init__(self, jobs: Sequence[Job], allowance: Allowance | None = None) -> None:
        self.allowance = allowance or Allowance(None)
        self.left: list[Job] = []
        self.training = {job.model.id for job in jobs if not job.cells}
        weight = {
            job.model.id: sum(len(other.cells) for other in jobs if other.model.id == job.model.id)
            for job in jobs
        }
        self.waiting = deque(sorted(jobs, key=lambda job: (bool(job.cells), -weight[job.model.id])))
        self.not_before: dict[int, float] = {}

    def take(self) -> Job | None:
        """The next job that can run now and will end in time."""
        for job in [job for job in self.waiting if not self.allowance.fits(job)]:
            if job in self.waiting:  # it may have hung on one before
                self.waiting.remove(job)
                self.leave(job)
        for job in self.waiting:
            if not job.needs & self.training and self.not_before.get(id(job), 0.0) <= time.monotonic():
                self.waiting.remove(job)
                limited = self.allowance.minutes is not None
                return replace(job, until=self.allowance.until) if limited else job
        return None

    def leave(self, job: Job) -> None:
        """Give up a job for lack of time, and what hangs on it."""
        self.left.append(job)
        if not job.cells:
            self.left += self._without(job.model.id)

    def again(self, job: Job) -> None:
        """Put back a job that another process has."""
        self.not_before[id(job)] = time.monotonic() + BUSY_SECONDS
        self.waiting.append(job)

    def done(self, job: Job, well: bool = True, seconds: float | None = None) -> None:
        """A finished training makes what needs it ready; a failed one takes it away."""
        if seconds is not None:
            self.allowance.took(job, seconds)
        if not job.cells:
            self.training.discard(job.model.id)
            if not well:
                self._without(job.model.id)

    def _without(self, model: str) -> list[Job]:
        """Take away all that hangs on a model that will not be there."""
        lost = {model}
        lost |= {other.model.id for other in self.waiting if not other.cells and other.needs & lost}
        gone = [other for other in self.waiting if other.model.id in lost]
        self.waiting = deque(other for other in self.waiting if other.model.id not in lost)
        return gone


def check(runtime: RuntimeSettings) -> None:
    """Raise ConfigError for a runtime that cannot be, before anything starts."""
    if runtime.launcher not in LAUNCHERS:
        raise unknown("launcher", runtime.launcher, LAUNCHERS)
    if runtime.kernel not in NAMES:
        raise unknown("kernel", runtime.kernel, NAMES)
    pick_device(runtime.device)
    WandbSettings(runtime.wandb)
    for name in ("threads", "checkpoint_every", "tokens_per_pass"):
        if getattr(runtime, name) < 1:
            raise ConfigError(f"runtime.{name} {getattr(runtime, name)}: give at least 1")


def run(
    jobs: Sequence[Job], runtime: RuntimeSettings, board: Board, allowance: Allowance | None = None
) -> tuple[list[str], list[Job]]:
    """Run all jobs for which there is time; a line for each that failed, and those that are left."""
    queue = Queue(jobs, allowance)
    devices = places(runtime, len(jobs))
    if runtime.launcher == "inline" or len(devices) == 1:
        failures = inline(queue, replace(runtime, device=devices[0]), board)
    else:
        failures = local(queue, [replace(runtime, device=device) for device in devices], board)
    return failures, queue.left


def places(runtime: RuntimeSettings, most: int) -> list[str]:
    """The device of each worker: one a GPU, or one for every `threads` cores."""
    gpus = torch.cuda.device_count() if runtime.device in ("auto", "cuda") else 0
    if runtime.launcher == "inline":
        return [runtime.device]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = runtime.workers or gpus or max(1, cores // runtime.threads)
    workers = max(1, min(workers, most))
    return [f"cuda:{worker % gpus}" if gpus else runtime.device for worker in range(workers)]


def inline(queue: Queue, runtime: RuntimeSettings, board: Board) -> list[str]:
    """One job after another, here."""
    worker, failures, stopping = Worker(runtime), [], on_signal()
    while queue.waiting:
        job = queue.take()
        if job is None:
            time.sleep(0.2)
            continue
        started = time.monotonic()
        board.started(job)
        try:
            outcome = worker.run(job, lambda *told, job=job: board.told(job, *told), stopping)
        except Stopped:
            raise KeyboardInterrupt from None
        except PosbenchError as error:
            failures.append(f"{job.label}: {error}")
            board.failed(job, str(error))
            queue.done(job, well=False)
            continue
        if outcome == "busy":
            queue.again(job)
        elif outcome == "unfinished":
            queue.leave(job)
            board.unfinished(job)
        else:
            queue.done(job, seconds=time.monotonic() - started)
            board.finished(job, time.monotonic() - started)
    return failures


def local(queue: Queue, runtimes: list[RuntimeSettings], board: Board) -> list[str]:
    """A process for each of `runtimes`, each given the next job that is ready."""
    hands = [_Hand(runtime) for runtime in runtimes]
    failures: list[str] = []
    try:
        while queue.waiting or any(hand.job for hand in hands):
            for hand in hands:
                if hand.job is None and (job := queue.take()) is not None:
                    hand.give(job)
                    board.started(job)
            heard = wait([hand.connection for hand in hands if hand.job], 0.2)
            for hand in hands:
                if hand.connection in heard:
                    _hear(hand, queue, board, failures)
            if not any(hand.job for hand in hands):
                time.sleep(0.2)
    finally:
        for hand in hands:
            hand.close()
    return failures


def _hear(hand: _Hand, queue: Queue, board: Board, failures: list[str]) -> None:
    job = hand.job
    assert job is not None
    try:
        kind, *content = hand.connection.recv()
    except EOFError:
        hand.process.join()
        kind, content = (
            "failed",
            [f"its process died (exit code {hand.process.exitcode}); run again to retry"],
        )
        hand.start()
    if kind == "told":
        board.told(job, *content)
        return
    hand.job = None
    if kind == "busy":
        queue.again(job)
    elif kind == "unfinished":
        queue.leave(job)
        board.unfinished(job)
    elif kind == "done":
        queue.done(job, seconds=time.monotonic() - hand.since)
        board.finished(job, time.monotonic() - hand.since)
    else:
        failures.append(f"{job.label}: {content[0]}")
        board.failed(job, content[0])
        queue.done(job, well=False)


class _Hand:
    """A worker process and the job that it has."""

    process: BaseProcess
    connection: Connection

    def __init__(self, runtime: RuntimeSettings) -> None:
        self.runtime = runtime
        self.job: Job | None = None
        self.since = 0.0
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, self.runtime, os.getpid()), daemon=True)
        self.process.start()
        other.close()

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        self.connection.send(job)

    def close(self) -> None:
        """End the process: at once if it is idle, after a checkpoint if it is at work."""
        self.connection.close()
        if self.job is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)  # type: ignore[arg-type]
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()


def serve(connection: Connection, runtime: RuntimeSettings, parent: int) -> None:
    """A worker process: jobs in, what becomes of them out, until the other end closes."""
    stopping = on_signal()
    worker = Worker(runtime)
    # A sweep that was killed must not leave workers that train on.
    asked: Callable[[], bool] = lambda: stopping() or os.getppid() != parent  # noqa: E731
    while not asked():
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            outcome = worker.run(job, lambda *told: _send(connection, ("told", *told)), asked)
            _send(connection, (outcome,))
        except Stopped:
            return
        except PosbenchError as error:
            _send(connection, ("failed", str(error)))
        except Exception as error:  # a fault of one job must not end the others
            traceback.print_exc()
            _send(connection, ("failed", f"{type(error).__name__}: {error}"))


def _send(connection: Connection, message: tuple[Any, ...]) -> None:
    with suppress(OSError):  # nobody listens any more; `asked` will say so
        connection.send(message)


def on_signal() -> Callable[[], bool]:
    """Whether SIGINT or SIGTERM has come since; the first asks to stop, a second one kills as usual."""
    stopping = False

    def stop(number: int, frame: Any) -> None:
        nonlocal stopping
        stopping = True
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
    return lambda: stopping
