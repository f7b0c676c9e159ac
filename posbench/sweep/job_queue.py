"""The order of the jobs of a sweep: models before their cells, and only jobs that fit in the time budget."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from posbench.sweep.jobs import Job
from posbench.sweep.progress import ProgressDisplay
from posbench.sweep.time_budget import TimeBudget

# Seconds before a job that another sweep is running is tried again.
RETRY_BUSY_SECONDS = 2.0


class JobQueue:
    """A queue of jobs. A job is ready when the models that it requires are trained; trainings with the most cells
    come first.

    Attributes:
        remaining: jobs that do not fit in the time budget.
        failures: a line for each job that failed.
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
        """Returns the next job that is ready and fits in the time budget, or None."""
        for job in [job for job in self.pending if not self.time_budget.fits(job)]:
            if job in self.pending:  # it may have required a job that was skipped before it
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
        """Waits for the next job that is ready; returns None when the queue is empty."""
        while self.pending:
            if (job := self.next_ready()) is not None:
                return job
            if self.pending:
                time.sleep(0.2)
        return None

    def record_outcome(
        self, job: Job, progress: ProgressDisplay, outcome: str, seconds: float, error: str = ""
    ) -> None:
        """Records the outcome of a job that ran for `seconds`: "done", "busy", "out_of_time", or "failed" with an error."""
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
        """Moves a job and the jobs that require it to `remaining`."""
        self.remaining.append(job)
        if not job.cells:
            self.remaining += self._drop_dependents(job.model.id)

    def requeue(self, job: Job) -> None:
        """Puts back a job that another process is running."""
        self.not_before[id(job)] = time.monotonic() + RETRY_BUSY_SECONDS
        self.pending.append(job)

    def mark_finished(self, job: Job, succeeded: bool = True, seconds: float | None = None) -> None:
        """Marks a job as finished; the jobs that require it become ready, or are dropped if it failed."""
        if seconds is not None:
            self.time_budget.record_duration(job, seconds)
        if not job.cells:
            self.training.discard(job.model.id)
            if not succeeded:
                self._drop_dependents(job.model.id)

    def _drop_dependents(self, model: str) -> list[Job]:
        """Removes and returns the jobs that require a model that will not be trained."""
        lost = {model}
        lost |= {
            other.model.id for other in self.pending if not other.cells and other.required_model_ids & lost
        }
        gone = [other for other in self.pending if other.model.id in lost]
        self.pending = deque(other for other in self.pending if other.model.id not in lost)
        return gone
