"""Workers as Ray actors, with a share of a GPU or some cores each; an actor on a node that is lost starts on another."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, PosbenchError
from posbench.plan.sweep_file import Assignment
from posbench.runtime.signals import SIGNALS, Interrupted, stop_flag
from posbench.sweep.worker import DeviceLostError, run_worker
from posbench.tracking import tracker

CONNECT_SECONDS = 10.0
STOP_SECONDS = 60.0  # for checkpoints at the end
SUBMIT_SECONDS = 3.0  # until calls have reached their actors


class RayWorker:
    """A worker in an actor."""

    def work(self, folder: str, assignment: Assignment, stays: bool, device: str = "") -> str:
        """Works until no job is left; returns an error, or nothing.

        Args:
            folder: the current one of the sweep, from which it names files.
            stays: whether the sweep waits for the actor, which else ends itself.
            device: see `run_worker`.
        """
        import ray

        error = ""
        if Path(folder).is_dir():
            os.chdir(folder)
        try:
            with stop_flag() as signalled:
                run_worker(assignment, lambda: signalled() or ray.get_runtime_context().is_canceled(), device)
        except DeviceLostError:  # a new process can use the device: Ray starts the actor and its task again
            tracker.wait_for_calls()
            os._exit(1)
        except (PosbenchError, Interrupted) as ended:
            error = str(ended) if isinstance(ended, PosbenchError) else ""
        tracker.wait_for_calls()  # Ray kills actors, without exit hooks
        if not stays:
            ray.actor.exit_actor()
        return error


def connect(address: str | None) -> None:
    """Joins a cluster, or starts one on this machine; raises ConfigError if there is none at the address."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        if port.isdigit():  # Ray would wait for many minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, OSError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(
            f"runtime.ray.address {address!r} has no cluster ({line}): start one by ray start, or give another"
        ) from None
    for number, handler in handlers.items():  # Ray sets one of its own for SIGTERM
        signal.signal(number, handler)


@contextmanager
def workers(assignment: Assignment, runtime: RuntimeSettings, jobs: int) -> Iterator[Callable[[float], bool]]:
    """Starts the workers; yields a function that waits some seconds and returns whether one still works.

    Args:
        jobs: that are left, of which each worker needs one.
    """
    import ray

    settings = runtime.ray
    connect(settings.address)
    total, needed = ray.cluster_resources(), {"CPU": settings.cpus, "GPU": settings.gpus}
    fitting = int(min(total.get(kind, 0.0) / amount for kind, amount in needed.items() if amount))
    if not fitting:
        raise ConfigError(
            f"no node has the {settings.cpus:g} CPUs and {settings.gpus:g} GPUs of a worker: give smaller runtime.ray.cpus "
            "and runtime.ray.gpus"
        )
    actor: Any = ray.remote(RayWorker).options(
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
        max_restarts=-1,
        max_task_retries=-1,
        lifetime=None if runtime.wait else "detached",  # on the cluster until no job is left
    )
    actors = [actor.remote() for _ in range(min(settings.workers or fitting, jobs))]
    if not runtime.wait:  # a call to an actor that has not started is lost when this process leaves
        ray.wait(
            [one.__ray_ready__.remote() for one in actors], num_returns=len(actors), timeout=STOP_SECONDS
        )
    # Ray does not hide GPUs from an actor without any.
    device = "cpu" if not settings.gpus and runtime.device == "auto" else ""
    pending = [one.work.remote(os.getcwd(), assignment, runtime.wait, device) for one in actors]
    if not runtime.wait:
        ray.wait(pending, timeout=SUBMIT_SECONDS)

    def wait(seconds: float) -> bool:
        nonlocal pending
        ended, pending = ray.wait(pending, num_returns=len(pending), timeout=seconds)
        for error in filter(None, ray.get(ended)):
            raise PosbenchError(error)
        return bool(pending)

    try:
        yield wait
    finally:
        if runtime.wait:
            with suppress(Exception):
                for reference in pending:
                    ray.cancel(reference)
                ray.wait(pending, num_returns=len(pending), timeout=STOP_SECONDS)
        ray.shutdown()
