"""Worker processes, which run the jobs that are ready and end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.instantiate import allow, allowed_packages
from posbench.sweep.job_queue import JobQueue
from posbench.sweep.jobs import Job, Worker
from posbench.sweep.progress import ProgressDisplay
from posbench.training.trainer import TrainingInterrupted


def run_in_processes(queue: JobQueue, runtimes: list[RuntimeSettings], progress: ProgressDisplay) -> None:
    """Runs the jobs of a queue in one worker process for each of `runtimes`."""
    workers = [_WorkerProcess(runtime) for runtime in runtimes]
    try:
        while queue.pending or any(worker.job for worker in workers):
            for worker in workers:
                if worker.job is None and (job := queue.next_ready()) is not None:
                    worker.give(job)
                    progress.job_started(job)
            ready = wait([worker.connection for worker in workers if worker.job], 0.2)
            for worker in workers:
                if worker.connection in ready:
                    _receive(worker, queue, progress)
            if not any(worker.job for worker in workers):
                time.sleep(0.2)
    finally:
        for worker in workers:
            worker.close()


def _receive(worker: _WorkerProcess, queue: JobQueue, progress: ProgressDisplay) -> None:
    job = worker.job
    assert job is not None
    try:
        kind, *content = worker.connection.recv()
    except EOFError:
        worker.process.join()
        kind, content = (
            "failed",
            [f"its process died (exit code {worker.process.exitcode}); run again to retry"],
        )
        worker.start()
    if kind == "progress":
        progress.job_progress(job, *content)
        return
    worker.job = None
    queue.record_outcome(job, progress, kind, time.monotonic() - worker.since, *content)


class _WorkerProcess:
    """A worker process and its current job."""

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
        self.process = context.Process(
            target=serve, args=(other, self.runtime, os.getpid(), allowed_packages()), daemon=True
        )
        self.process.start()
        other.close()

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        self.connection.send(job)

    def close(self) -> None:
        """Ends the process: at once if it is idle, after a checkpoint if it runs a job."""
        self.connection.close()
        if self.job is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)  # type: ignore[arg-type]
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()


def serve(connection: Connection, runtime: RuntimeSettings, parent: int, packages: frozenset[str]) -> None:
    """Receives jobs and sends their progress and outcomes, until the other end of the connection closes."""
    signalled = install_stop_handler()
    allow(packages)
    worker = Worker(runtime)
    # Workers must not continue when the sweep that started them was killed.
    should_stop: Callable[[], bool] = lambda: signalled() or os.getppid() != parent  # noqa: E731
    while not should_stop():
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            outcome = worker.run(job, lambda *message: _send(connection, ("progress", *message)), should_stop)
            _send(connection, (outcome,))
        except TrainingInterrupted:
            return
        except PosbenchError as error:
            _send(connection, ("failed", str(error)))
        except Exception as error:  # a bug in one job must not end the others
            traceback.print_exc()
            _send(connection, ("failed", f"{type(error).__name__}: {error}"))


def _send(connection: Connection, message: tuple[Any, ...]) -> None:
    with suppress(OSError):  # the sweep has ended; `should_stop` returns true soon
        connection.send(message)


def install_stop_handler() -> Callable[[], bool]:
    """Returns a function that is true after SIGINT or SIGTERM; a second signal kills the process as usual."""
    stopping = False

    def stop(number: int, frame: Any) -> None:
        nonlocal stopping
        stopping = True
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
    return lambda: stopping
