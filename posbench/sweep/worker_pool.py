"""Worker processes: each is given the next job that is ready, and ends with the process that started it."""

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
from posbench.sweep.jobs import Job, Worker
from posbench.sweep.scheduler import Board, Queue
from posbench.training.trainer import Stopped


def local(queue: Queue, runtimes: list[RuntimeSettings], board: Board) -> None:
    """A process for each of `runtimes`, each given the next job that is ready."""
    hands = [_Hand(runtime) for runtime in runtimes]
    try:
        while queue.waiting or any(hand.job for hand in hands):
            for hand in hands:
                if hand.job is None and (job := queue.take()) is not None:
                    hand.give(job)
                    board.started(job)
            heard = wait([hand.connection for hand in hands if hand.job], 0.2)
            for hand in hands:
                if hand.connection in heard:
                    _hear(hand, queue, board)
            if not any(hand.job for hand in hands):
                time.sleep(0.2)
    finally:
        for hand in hands:
            hand.close()


def _hear(hand: _Hand, queue: Queue, board: Board) -> None:
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
    queue.settle(job, board, kind, time.monotonic() - hand.since, *content)


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
