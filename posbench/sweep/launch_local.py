"""Worker processes on this machine, which share its cores or GPUs and end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.plan.sweep_file import Assignment
from posbench.runtime.signals import SIGNALS, Interrupted, delayed_signals, stop_flag

START_ATTEMPTS = 3
MAX_DEATHS = 3  # for each worker, after which the sweep ends
STOP_SECONDS = 60.0  # for a checkpoint, after which a worker is killed


def warm_up() -> None:
    """Starts the process that workers are forked from; it imports torch while this process plans."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["posbench.sweep.worker"])
    resource_tracker.ensure_running()  # its own start would end the delay
    with delayed_signals():
        forkserver.ensure_running()


def devices(runtime: RuntimeSettings, max_workers: int) -> list[str]:
    """Returns the device of each worker: `workers_per_gpu` workers a GPU, or one for every `num_threads` cores."""
    import torch

    gpus = torch.cuda.device_count() if runtime.device in ("auto", "cuda") else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = runtime.num_workers or gpus * runtime.workers_per_gpu or max(1, cores // runtime.num_threads)
    workers = max(1, min(workers, max_workers))
    return [f"cuda:{worker % gpus}" if gpus else runtime.device for worker in range(workers)]


@contextmanager
def workers(assignment: Assignment, devices: list[str], deadline: float) -> Iterator[Callable[[float], bool]]:
    """Starts a worker for each device; yields a function that waits some seconds and returns whether one still works.

    Raises:
        PosbenchError: if a worker ends with an error, or too many die.
    """
    warm_up()
    running: dict[str, tuple[Any, Connection]] = {}
    deaths = 0

    def start(name: str) -> None:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("forkserver").Process(
            target=serve, args=(theirs, assignment, devices[int(name)], deadline), name=name, daemon=True
        )
        for attempt in range(START_ATTEMPTS):
            try:
                with delayed_signals():
                    process.start()
                break
            except (
                EOFError,
                OSError,
            ):  # the server of forks was killed; it is started again with the next process
                if attempt == START_ATTEMPTS - 1:
                    raise PosbenchError(
                        "worker processes cannot be started: free memory or processes"
                    ) from None
                time.sleep(0.5)  # until the system has noticed the end of the server
        theirs.close()
        running[name] = process, ours

    def wait(seconds: float) -> bool:
        nonlocal deaths
        connection.wait([process.sentinel for process, _ in running.values()], seconds)
        for name, (process, ours) in list(running.items()):
            if process.is_alive():
                continue
            del running[name]
            error = last_word(ours)
            if error:
                raise PosbenchError(error)
            if process.exitcode:
                deaths += 1
                if deaths > MAX_DEATHS * len(devices):
                    raise PosbenchError(
                        f"{deaths} worker processes died, the last with exit code {process.exitcode}: give fewer "
                        "runtime.num_workers, which need less memory, or runtime.launcher=inline"
                    )
                print(
                    f"a worker died (exit code {process.exitcode}); another one is started", file=sys.stderr
                )
                start(name)
        return bool(running)

    try:
        for index in range(len(devices)):
            start(str(index))
        yield wait
    finally:
        for _, ours in running.values():
            ours.close()  # which makes a worker stop at its next checkpoint or cell
        end = time.monotonic() + STOP_SECONDS
        for process, _ in running.values():
            process.join(max(0.0, end - time.monotonic()))
            process.kill()


def last_word(ours: Connection) -> str:
    """Returns the error with which a worker ended, or nothing."""
    with suppress(EOFError, OSError):
        if ours.poll():
            return ours.recv_bytes().decode()
    return ""


def serve(theirs: Connection, assignment: Assignment, device: str, deadline: float) -> None:
    """Works until no job is left; stops at a checkpoint when the other end of the connection closes, or by a signal."""
    from posbench.sweep.worker import run_worker

    try:
        with stop_flag() as signalled:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # delayed since the start of the process
            run_worker(assignment, lambda: signalled() or theirs.poll(), device, deadline)
    except Interrupted as stopped:
        sys.exit(stopped.status)  # the sweep prints the line
    except PosbenchError as error:
        with suppress(OSError):
            theirs.send_bytes(str(error).encode())
        sys.exit(2)
