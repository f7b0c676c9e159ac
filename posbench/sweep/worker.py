"""A worker: claims the next job of a sweep in its results folder, runs it, and claims the next, until none is left.

Workers communicate through the results folder alone, so that any number can be started at any time, on any machine.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import torch

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, PosbenchError, format_error
from posbench.evaluation.results_folder import ResultsFolder
from posbench.instantiate import allow
from posbench.plan.job import Job
from posbench.plan.sweep_file import Assignment, read_sweep
from posbench.runtime.device import free_memory, pick_device
from posbench.runtime.distributed import RankLostError, world
from posbench.runtime.oom import is_end_of_device
from posbench.runtime.signals import Interrupted
from posbench.sweep.claims import Claim, Claims
from posbench.sweep.run_job import JobRunner
from posbench.sweep.state import FAILED, StateReader, write_record
from posbench.training.trainer import TrainingInterrupted

MAX_CRASHES = (
    3  # processes that die with one job, none further than the one before, until it counts as failed
)
MIN_WAIT, MAX_WAIT = 0.1, 5.0  # seconds between two looks at jobs that others are running


class LeaseLostError(PosbenchError):
    """Another process may run the job."""


class DeviceLostError(PosbenchError):
    """This process cannot use its GPU any more, after an error in a job, whose record is written."""


class Worker:
    """One process, or one group of ranks, that runs jobs of a sweep.

    Args:
        run: id of the command that started it; a job that fails is not tried again under the same id.
        deadline: time of time.monotonic() at which it stops.

    Attributes:
        on_change: called when a job has started, gone on or ended.
    """

    def __init__(
        self, reader: StateReader, runtime: RuntimeSettings, run: str, deadline: float = math.inf
    ) -> None:
        self.reader, self.run, self.deadline = reader, run, deadline
        self.runner = JobRunner(reader.sweep, reader.results_folder, runtime)
        self.claims = Claims(reader.results_folder.path / "locks", run, runtime.lease_seconds)
        self.ended: set[str] = set()
        self.on_change: Callable[[], None] = lambda: None

    def work(self, should_stop: Callable[[], bool]) -> None:
        """Runs jobs until none is left, `should_stop` returns true or the deadline has come.

        Raises:
            Interrupted: if `should_stop` has returned true on another rank.
        """
        self.runner.is_interrupted = should_stop
        while True:
            job, claim = self.next_claim(should_stop) if world().is_main_process else (None, None)
            job = world().broadcast_object(job)
            if job is None:
                return
            try:
                self.run_job(job, claim, should_stop)
            except TrainingInterrupted:
                stopped = should_stop()
                if world().any_rank(stopped) and not stopped:
                    raise Interrupted from None
                return
            finally:
                if claim:
                    claim.release()
            self.on_change()

    def next_claim(self, should_stop: Callable[[], bool]) -> tuple[Job | None, Claim | None]:
        """Claims the next job, waiting for those of others if need be; returns None if there is nothing to wait for."""
        wait = MIN_WAIT
        while not should_stop() and time.monotonic() < self.deadline:
            jobs = [job for job in self.reader.read().left if self.will_run(job)]
            jobs.sort(key=lambda job: self.reader.record(job.name).get("outcome") == "failed")  # those last
            # Running jobs as well: a lease may be that of a dead process, which its claim decides.
            for job in filter(self.reader.has_inputs, jobs):
                if claim := self.claims.acquire(job.name):
                    # Another process may have ended it since the state was read.
                    if job in self.reader.read().left and self.will_run(job):
                        return job, claim
                    claim.release()
            self.on_change()
            if not jobs:
                break
            end = min(time.monotonic() + wait, self.deadline)
            while time.monotonic() < end and not should_stop():
                time.sleep(MIN_WAIT)
            wait = min(1.5 * wait, MAX_WAIT)
        return None, None

    def will_run(self, job: Job) -> bool:
        """Returns whether a job that is left can run under this command, now or after trainings that it waits for."""
        record, trains = self.reader.record(job.name), self.reader.sweep.trains
        if job.name in self.ended or (record.get("outcome"), record.get("run")) == ("failed", self.run):
            return False
        missing = [model for model in job.inputs if not self.reader.has_model(model)]
        return all(model in trains and self.will_run(trains[model]) for model in missing)

    def run_job(self, job: Job, claim: Claim | None, should_stop: Callable[[], bool]) -> None:
        """Runs a job, and records how it ended.

        Args:
            claim: of rank 0; None on the other ranks.

        Raises:
            TrainingInterrupted: if it was stopped, with all progress saved.
            DeviceLostError: after an error of the job that ends the use of the GPU by this process.
        """

        def is_over() -> bool:
            if claim and claim.is_lost:
                raise LeaseLostError("its lease was not renewed in time, and another process may run the job")
            return should_stop() or time.monotonic() > self.deadline

        def on_progress(*progress: object) -> None:
            if claim:
                claim.progress = progress  # type: ignore[assignment]
                self.on_change()

        started, trace, device_is_gone = time.monotonic(), "", False
        try:
            if claim and claim.crashes >= MAX_CRASHES:
                raise PosbenchError(
                    f"its process died {MAX_CRASHES} times without getting further, by a signal or without memory"
                )
            with world().fail_together():
                part = self.runner.run(job, on_progress, is_over)
            outcome = {"outcome": "done", "seconds": time.monotonic() - started, "flops": part * job.flops}
        except LeaseLostError:
            return
        except RankLostError as error:  # no job can go on without the other ranks
            if error.has_reason:
                self.record_failure(job, claim, str(error))
            raise
        except TrainingInterrupted:
            raise
        except PosbenchError as error:
            outcome = {"outcome": "failed", "error": str(error)}
        except Exception as error:  # a bug in one job must not end the others
            if world().world_size > 1:
                self.record_failure(job, claim, format_error(error), traceback.format_exc())
                raise
            device_is_gone = is_end_of_device(error)
            trace, line = traceback.format_exc(), " ".join(f"{type(error).__name__}: {error}".split())
            line += f" (traceback in {self.reader.results_folder.path}/jobs/{job.name}.log)"
            outcome = {"outcome": "failed", "error": line}
        if outcome["outcome"] == "failed":  # the error held what the job had in memory
            free_memory()
        # A failed one as well: workers of two commands would try it again in turn for ever.
        self.ended.add(job.name)
        if claim and not claim.is_lost:
            write_record(self.reader.results_folder, job, self.run, trace, **outcome)
        if device_is_gone:  # for every later job of this process; a fresh process can use it
            raise DeviceLostError(f"{job.label}: {outcome['error']}")

    def record_failure(self, job: Job, claim: Claim | None, error: str, trace: str = "") -> None:
        """Records a failure that ends all ranks, so that the next start runs the other jobs first."""
        if claim and not claim.is_lost:
            failed = {"outcome": "failed", "error": error}
            write_record(self.reader.results_folder, job, self.run, trace, **failed)


def run_worker(assignment: Assignment, should_stop: Callable[[], bool], device: str = "") -> tuple[str, int]:
    """Works on a sweep in this process, as a launcher starts it.

    Args:
        device: in place of that of the settings.

    Returns:
        A line about the jobs that are left, and the number of those that have failed.
    """
    allow(assignment.packages)
    sweep, folder = read_sweep(assignment.results_dir, assignment.sweep), assignment.results_dir
    runtime = replace(
        sweep.runtime,
        device=device or sweep.runtime.device,
        results_dir=str(folder),
        workers_per_gpu=assignment.processes_per_gpu,
    )
    pick_device(runtime.device)
    runtime, deadline = set_device(runtime), min(assignment.deadline, deadline_of(runtime))
    reader = StateReader(sweep, ResultsFolder(folder), runtime)
    Worker(reader, runtime, assignment.run, deadline).work(should_stop)
    left, failed = len(reader.read().left), reader.jobs[FAILED]
    if not left:
        return "no job is left", 0
    line = f"time is up: {left} jobs are left" if time.monotonic() >= deadline else f"{left} jobs are left"
    for job in failed[:1]:
        line += f", {len(failed)} failed, the first {job.label}: {reader.record(job.name)['error']}"
    return line, len(failed)


def deadline_of(runtime: RuntimeSettings) -> float:
    """Returns the time of time.monotonic() at which workers that start now stop."""
    return time.monotonic() + 60 * runtime.max_minutes if runtime.max_minutes else math.inf


def set_device(runtime: RuntimeSettings) -> RuntimeSettings:
    """Makes the GPU of the settings, or of this rank, that of the process, before anything is placed on one."""
    here = world()
    if here.world_size > 1:
        if runtime.device.startswith("cuda:"):
            raise ConfigError(
                f"runtime.device {runtime.device} with {here.world_size} processes, which have a GPU each: give "
                "runtime.device=cuda or cpu"
            )
        gpus = torch.cuda.device_count() if runtime.device in ("auto", "cuda") else 0
        if gpus and here.local_rank >= gpus:
            raise ConfigError(
                f"process {here.local_rank} of this machine has no GPU, of which there are {gpus}: start as many processes "
                "as there are GPUs, or give runtime.device=cpu"
            )
        runtime = replace(runtime, device=f"cuda:{here.local_rank}" if gpus else "cpu")
        if not here.is_main_process:
            runtime = replace(runtime, tracker="none")
    if runtime.device.startswith("cuda:"):
        torch.cuda.set_device(runtime.device)
    return runtime
