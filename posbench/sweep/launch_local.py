"""Worker processes on this machine, which share its cores or GPUs and end with the process that started them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

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

    gpus = [runtime.device] if runtime.device.startswith("cuda:") else []
    if runtime.device in ("auto", "cuda"):
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = (
        runtime.num_workers or len(gpus) * runtime.workers_per_gpu or max(1, cores // runtime.num_threads)
    )
    workers = max(1, min(workers, max_workers))
    return [gpus[worker % len(gpus)] if gpus else runtime.device for worker in range(workers)]


@contextmanager
def workers(assignment: Assignment, runtime: RuntimeSettings, jobs: int) -> Iterator[Callable[[float], bool]]:
    """Starts a worker for each device; yields a function that waits some seconds and returns whether one still works.

    Raises:
        PosbenchError: if a worker ends with an error, or too many die.
    """
    warm_up()
    running: list[tuple[str, BaseProcess, Connection]] = []
    places, deaths = devices(runtime, jobs), 0
    cores = max(1, (os.cpu_count() or 1) // len(places))

    def start(device: str) -> None:
        ours, theirs = multiprocessing.Pipe()
        arguments = theirs, assignment, device, cores
        process = multiprocessing.get_context("forkserver").Process(target=serve, args=arguments, daemon=True)
        for _ in range(START_ATTEMPTS):
            # An error is the end of the server of forks, which the next attempt starts again.
            with suppress(EOFError, OSError), delayed_signals():
                process.start()
                running.append((device, process, ours))
                theirs.close()
                return
            time.sleep(0.5)  # until the system has noticed
        raise PosbenchError("worker processes cannot be started: free memory or processes")

    def wait(seconds: float) -> bool:
        nonlocal deaths
        connection.wait([process.sentinel for _, process, _ in running], seconds)
        for one in [one for one in running if not one[1].is_alive()]:
            running.remove(one)
            device, process, ours = one
            with suppress(EOFError, OSError):
                if ours.poll():  # the words of an error
                    raise PosbenchError(ours.recv_bytes().decode())
            if process.exitcode:
                deaths += 1
                if deaths > MAX_DEATHS * len(places):
                    raise PosbenchError(
                        f"{deaths} worker processes died, the last with exit code {process.exitcode}: give fewer "
                        "runtime.num_workers, which need less memory, or runtime.launcher=inline"
                    )
                print(
                    f"a worker died (exit code {process.exitcode}); another one is started", file=sys.stderr
                )
                start(device)
        return bool(running)

    try:
        for device in places:
            start(device)
        yield wait
    finally:
        for _, _, ours in running:
            ours.close()  # which makes a worker stop at its next checkpoint or cell
        end = time.monotonic() + STOP_SECONDS
        for _, process, _ in running:
            process.join(max(0.0, end - time.monotonic()))
            process.kill()


def serve(theirs: Connection, assignment: Assignment, device: str, cores: int) -> None:
    """Works until no job is left; stops at a checkpoint when the other end of the connection closes, or by a signal.

    Args:
        cores: largest number of processes that compile for a GPU, by default one for each core of the machine.
    """
    if device.startswith("cuda"):
        import torch._inductor.config

        torch._inductor.config.compile_threads = min(cores, torch._inductor.config.compile_threads or cores)
    from posbench.sweep.worker import DeviceLostError, run_worker

    try:
        with stop_flag() as signalled:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # delayed since the start of the process
            run_worker(assignment, lambda: signalled() or theirs.poll(), device)
    except Interrupted as stopped:
        sys.exit(stopped.status)  # the sweep prints the line
    except DeviceLostError:  # without words, so that another worker takes its place
        sys.exit(1)
    except PosbenchError as error:
        with suppress(OSError):
            theirs.send_bytes(str(error).encode())
        sys.exit(2)
    finally:
        atexit._run_exitfuncs()  # the forkserver ends processes without these hooks, in which trackers finish
