"""Which job of a sweep comes next: models before their cells, and nothing that there is no time for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from posbench.sweep.jobs import Job
from posbench.sweep.time_budget import Allowance

# How long a job waits that another sweep is running already.
BUSY_SECONDS = 2.0


class Board(Protocol):
    """Where progress is shown."""

    def started(self, job: Job) -> None: ...
    def told(self, job: Job, done: int, total: int, note: str) -> None: ...
    def finished(self, job: Job, seconds: float) -> None: ...
    def failed(self, job: Job, why: str) -> None: ...
    def unfinished(self, job: Job) -> None: ...


class Queue:
    """Jobs in order, each ready once the models that it needs are trained; trainings that much hangs on come first.

    Attributes:
        left: those that the allowance has no time for.
        failures: a line for each that failed.
    """

    def __init__(self, jobs: Sequence[Job], allowance: Allowance | None = None) -> None:
        self.allowance = allowance or Allowance(None)
        self.left: list[Job] = []
        self.failures: list[str] = []
        self.training = {job.model.id for job in jobs if not job.cells}
        weight = {
            job.model.id: sum(len(other.cells) for other in jobs if other.model.id == job.model.id)
            for job in jobs
        }
        self.waiting = deque(sorted(jobs, key=lambda job: (bool(job.cells), -weight[job.model.id])))
        self.not_before: dict[int, float] = {}

    def take(self) -> Job | None:
        """The next job that can run now and will end in time."""
        for job in [job for job in self.waiting if not self.allowance.fits(job)]:
            if job in self.waiting:  # it may have hung on one before
                self.waiting.remove(job)
                self.leave(job)
        for job in self.waiting:
            if not job.needs & self.training and self.not_before.get(id(job), 0.0) <= time.monotonic():
                self.waiting.remove(job)
                limited = self.allowance.minutes is not None
                return replace(job, until=self.allowance.until) if limited else job
        return None

    def wait(self) -> Job | None:
        """The next job as soon as one can run; None once there is none."""
        while self.waiting:
            if (job := self.take()) is not None:
                return job
            if self.waiting:
                time.sleep(0.2)
        return None

    def settle(self, job: Job, board: Board, outcome: str, seconds: float, why: str = "") -> None:
        """What becomes of a job that ran for `seconds`: "done", "busy", "unfinished", or "failed" and why."""
        if outcome == "busy":
            self.again(job)
        elif outcome == "unfinished":
            self.leave(job)
            board.unfinished(job)
        elif outcome == "done":
            self.done(job, seconds=seconds)
            board.finished(job, seconds)
        else:
            self.failures.append(f"{job.label}: {why}")
            board.failed(job, why)
            self.done(job, well=False)

    def leave(self, job: Job) -> None:
        """Give up a job for lack of time, and what hangs on it."""
        self.left.append(job)
        if not job.cells:
            self.left += self._without(job.model.id)

    def again(self, job: Job) -> None:
        """Put back a job that another process has."""
        self.not_before[id(job)] = time.monotonic() + BUSY_SECONDS
        self.waiting.append(job)

    def done(self, job: Job, well: bool = True, seconds: float | None = None) -> None:
        """A finished training makes what needs it ready; a failed one takes it away."""
        if seconds is not None:
            self.allowance.took(job, seconds)
        if not job.cells:
            self.training.discard(job.model.id)
            if not well:
                self._without(job.model.id)

    def _without(self, model: str) -> list[Job]:
        """Take away all that hangs on a model that will not be there."""
        lost = {model}
        lost |= {other.model.id for other in self.waiting if not other.cells and other.needs & lost}
        gone = [other for other in self.waiting if other.model.id in lost]
        self.waiting = deque(other for other in self.waiting if other.model.id not in lost)
        return gone
