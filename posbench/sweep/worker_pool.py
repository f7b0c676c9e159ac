"""Worker processes, which run the jobs that are ready and end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.instantiate import allow, allowed_packages
from posbench.runtime.signals import SIGNALS, Interrupted, delayed_signals, stop_flag
from posbench.sweep.job_queue import JobQueue
from posbench.sweep.jobs import Job, Worker
from posbench.sweep.progress import ProgressDisplay
from posbench.training.trainer import TrainingInterrupted

MAX_STARTS = 3  # attempts to start a worker process in a row


def run_in_processes(queue: JobQueue, runtimes: list[RuntimeSettings], progress: ProgressDisplay) -> None:
    """Runs the jobs of a queue in one worker process for each of `runtimes`."""
    workers: list[_WorkerProcess] = []
    try:
        for runtime in runtimes:
            workers.append(_WorkerProcess(runtime))
        while queue.pending or any(worker.job for worker in workers):
            for worker in workers:
                if worker.ready and worker.job is None and (job := queue.next_ready()) is not None:
                    worker.give(job)
                    progress.job_started(job)
            messages = wait([worker.connection for worker in workers], 0.2)
            for worker in workers:
                if worker.connection in messages:
                    _receive(worker, queue, progress)
    finally:
        for worker in workers:
            worker.close()


def _receive(worker: _WorkerProcess, queue: JobQueue, progress: ProgressDisplay) -> None:
    job = worker.job
    try:
        kind, *content = worker.connection.recv()
    except (EOFError, OSError):
        death = worker.restart()
        if job is None:
            print(f"a worker process without a job {death}; another one is started", file=sys.stderr)
            return
        kind, content = "failed", [f"its process {death}"]
    if kind == "ready":
        worker.ready, worker.starts = True, 0
        return
    assert job is not None
    if kind == "progress":
        progress.job_progress(job, *content)
        return
    worker.job = None
    queue.record_outcome(job, progress, kind, time.monotonic() - worker.since, *content)


class _WorkerProcess:
    """A worker process and its current job.

    Attributes:
        ready: True when the process has imported what it needs and waits for jobs.
        starts: attempts to start the process since one was ready.
    """

    process: BaseProcess
    connection: Connection

    def __init__(self, runtime: RuntimeSettings) -> None:
        self.runtime = runtime
        self.job: Job | None = None
        self.since = 0.0
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.ready = False
        self.starts += 1
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=serve, args=(other, self.runtime, os.getpid(), allowed_packages()), daemon=True
        )
        resource_tracker.ensure_running()  # its own start would end the delay
        with delayed_signals():
            self.process.start()
        other.close()

    def restart(self) -> str:
        """Starts another process in place of one that died; returns how that one died.

        Raises:
            PosbenchError: if MAX_STARTS processes in a row died before they were ready.
        """
        self.process.join()
        self.connection.close()
        death = f"died (exit code {self.process.exitcode})"
        if self.starts >= MAX_STARTS:
            raise PosbenchError(
                f"{MAX_STARTS} worker processes in a row {death} while they started: give fewer runtime.num_workers, "
                "which need less memory, or runtime.launcher=inline"
            )
        self.start()
        return death

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        with suppress(OSError):  # the process died just now, which the next receive reports
            self.connection.send(job)

    def close(self) -> None:
        """Ends the process: after what its tracker has left if it has no job, after a checkpoint if it runs one."""
        self.connection.close()
        if self.job is not None or not self.ready:
            self.process.terminate()
        self.process.join(40)
        if self.process.is_alive():
            self.process.kill()


def serve(connection: Connection, runtime: RuntimeSettings, parent: int, packages: frozenset[str]) -> None:
    """Receives jobs and sends their progress and outcomes, until the other end of the connection closes."""
    allow(packages)
    try:
        with stop_flag() as signalled:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # delayed since the start of the process
            # Workers must not continue when the sweep that started them was killed.
            _serve(connection, Worker(runtime), lambda: signalled() or os.getppid() != parent)
    except Interrupted as stopped:
        sys.exit(stopped.status)  # the sweep prints the line


def _serve(connection: Connection, worker: Worker, should_stop: Callable[[], bool]) -> None:
    _send(connection, ("ready",))
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
