"""Workers as a Slurm job array, through submitit.

A worker that gets USR2, before its time limit or at a pre-emption, writes a checkpoint and is put back into the queue.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posbench.config.launchers import SlurmSettings
from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError
from posbench.plan.sweep_file import Assignment
from posbench.sweep.worker import run_worker

POLL_SECONDS = 5.0
MAX_FAILURES = 60  # of squeue in a row, five minutes
KILL_SECONDS = 120  # after SIGTERM; Slurm kills the worker before


class SlurmWorker:
    """The function that an array task runs; submitit calls `checkpoint` before it is put back into the queue."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment

    def __call__(self, number: int) -> None:
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        received: list[int] = []
        for kind in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(kind, lambda got, frame: received.append(got))
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        run_worker(self.assignment, lambda: bool(received))
        if signal.SIGUSR2 in received:
            requeue(signal.SIGUSR2, None)
        elif received:  # Slurm requeues a pre-empted job only if it has not ended by itself
            time.sleep(KILL_SECONDS)

    def checkpoint(self, number: int) -> Any:
        """Returns what a requeued task runs: the same, which continues from the results folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


@contextmanager
def workers(assignment: Assignment, runtime: RuntimeSettings, jobs: int) -> Iterator[Callable[[float], bool]]:
    """Submits the workers that are not in the queue yet; yields a function that waits and returns whether one still works.

    At least one is submitted for jobs that have failed, which the workers in the queue do not try again.

    Args:
        jobs: that are left, of which each worker needs one.
    """
    name, folder = job_name(assignment), assignment.results_dir / "slurm" / assignment.sweep
    missing = max(min(runtime.slurm.workers, jobs) - in_queue(name), int(assignment.retries))
    if missing > 0:
        submit(SlurmWorker(assignment), folder, name, runtime.slurm, missing)

    failures = 0

    def wait(seconds: float) -> bool:
        nonlocal failures
        time.sleep(max(seconds, POLL_SECONDS))
        try:
            found = in_queue(name)
        except ConfigError:  # a controller that does not answer for some minutes ends no sweep of hours
            failures += 1
            if failures > MAX_FAILURES:
                raise
            return True
        failures = 0
        return found > 0

    yield wait


def job_name(assignment: Assignment) -> str:
    """Returns the name of the workers of a sweep in one results folder."""
    folder = hashlib.sha256(str(assignment.results_dir.resolve()).encode()).hexdigest()[:8]
    return f"posbench-{assignment.sweep}-{folder}"


def submit(worker: SlurmWorker, folder: Path, name: str, settings: SlurmSettings, count: int) -> None:
    """Submits an array of workers with one call of sbatch."""
    import submitit

    optional = {
        "partition": settings.partition,
        "account": settings.account,
        "gpus_per_node": settings.gpus or None,
        "mem": f"{round(1024 * settings.memory_gb)}M" if settings.memory_gb else None,
    }
    executor = submitit.SlurmExecutor(folder / "%j", max_num_timeout=settings.requeues)
    executor.update_parameters(
        job_name=name,
        time=settings.minutes,
        cpus_per_task=settings.cpus,
        signal_delay_s=settings.signal_seconds,
        array_parallelism=count,
        additional_parameters={"requeue": True, **settings.sbatch},
        **{key: value for key, value in optional.items() if value is not None},
    )
    try:
        executor.map_array(worker, range(count))
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"sbatch has refused the workers ({line}): change runtime.slurm") from None


def in_queue(name: str) -> int:
    """Returns the number of one's own workers of a name that wait or run; one that is held does neither."""
    command = ["squeue", "--me", "--noheader", "--array", "--name", name, "--format", "%i %r"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"squeue failed ({' '.join(error.stderr.split())}): is Slurm running?") from None
    return sum("held" not in line.lower() for line in listed.stdout.splitlines())
