"""Which job of a sweep comes next: models before their cells, and nothing that there is no time for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from posbench.sweep.jobs import Job
from posbench.sweep.progress import ProgressDisplay
from posbench.sweep.time_budget import TimeBudget

# How long a job waits that another sweep is running already.
RETRY_BUSY_SECONDS = 2.0


class JobQueue:
    """Jobs in order, each ready once the models that it needs are trained; trainings that much hangs on come first.

    Attributes:
        remaining: those that the time budget has no time for.
        failures: a line for each that failed.
    """

    def __init__(self, jobs: Sequence[Job], time_budget: TimeBudget | None = None) -> None:
        self.time_budget = time_budget or TimeBudget(None)
        self.remaining: list[Job] = []
        self.failures: list[str] = []
        self.training = {job.model.id for job in jobs if not job.cells}
        weight = {
            job.model.id: sum(len(other.cells) for other in jobs if other.model.id == job.model.id)
            for job in jobs
        }
        self.pending = deque(sorted(jobs, key=lambda job: (bool(job.cells), -weight[job.model.id])))
        self.not_before: dict[int, float] = {}

    def next_ready(self) -> Job | None:
        """The next job that can run now and will end in time."""
        for job in [job for job in self.pending if not self.time_budget.fits(job)]:
            if job in self.pending:  # it may have hung on one before
                self.pending.remove(job)
                self.skip(job)
        for job in self.pending:
            if (
                not job.required_model_ids & self.training
                and self.not_before.get(id(job), 0.0) <= time.monotonic()
            ):
                self.pending.remove(job)
                limited = self.time_budget.minutes is not None
                return replace(job, deadline=self.time_budget.deadline) if limited else job
        return None

    def next_blocking(self) -> Job | None:
        """The next job as soon as one can run; None once there is none."""
        while self.pending:
            if (job := self.next_ready()) is not None:
                return job
            if self.pending:
                time.sleep(0.2)
        return None

    def record_outcome(
        self, job: Job, progress: ProgressDisplay, outcome: str, seconds: float, error: str = ""
    ) -> None:
        """What becomes of a job that ran for `seconds`: "done", "busy", "out_of_time", or "failed" and why."""
        if outcome == "busy":
            self.requeue(job)
        elif outcome == "out_of_time":
            self.skip(job)
            progress.job_interrupted(job)
        elif outcome == "done":
            self.mark_finished(job, seconds=seconds)
            progress.job_finished(job, seconds)
        else:
            self.failures.append(f"{job.label}: {error}")
            progress.job_failed(job, error)
            self.mark_finished(job, succeeded=False)

    def skip(self, job: Job) -> None:
        """Give up a job for lack of time, and what hangs on it."""
        self.remaining.append(job)
        if not job.cells:
            self.remaining += self._drop_dependents(job.model.id)

    def requeue(self, job: Job) -> None:
        """Put back a job that another process has."""
        self.not_before[id(job)] = time.monotonic() + RETRY_BUSY_SECONDS
        self.pending.append(job)

    def mark_finished(self, job: Job, succeeded: bool = True, seconds: float | None = None) -> None:
        """A finished training makes what needs it ready; a failed one takes it away."""
        if seconds is not None:
            self.time_budget.record_duration(job, seconds)
        if not job.cells:
            self.training.discard(job.model.id)
            if not succeeded:
                self._drop_dependents(job.model.id)

    def _drop_dependents(self, model: str) -> list[Job]:
        """Take away all that hangs on a model that will not be there."""
        lost = {model}
        lost |= {
            other.model.id for other in self.pending if not other.cells and other.required_model_ids & lost
        }
        gone = [other for other in self.pending if other.model.id in lost]
        self.pending = deque(other for other in self.pending if other.model.id not in lost)
        return gone
