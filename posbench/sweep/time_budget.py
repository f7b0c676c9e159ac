"""The time that a sweep may take: nothing is started that will not finish, and what is left is said.

For an allocation of limited time. A training that needs more than a whole time budget is begun all the same and
ends with a checkpoint, or it could never be had; the next run continues it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from statistics import median

from posbench.errors import ConfigError
from posbench.sweep.jobs import Job

# Estimates are of another scheme, perhaps: how much longer a job may take than its own.
MARGIN = 1.2


class TimeBudget:
    """How much of the time is left, and which jobs fit in it.

    Attributes:
        minutes: the whole time budget; None is no limit.
        deadline: when it ends, in seconds of `time.time()`, which other processes share.
    """

    def __init__(self, minutes: float | None) -> None:
        if minutes is not None and not minutes > 0:
            raise ConfigError(
                f"runtime.max_minutes {minutes:g}: give a number of minutes above 0, or null for no limit"
            )
        self.minutes = minutes
        self.deadline = math.inf if minutes is None else time.time() + 60 * minutes
        self._paces: dict[bool, list[float]] = {True: [], False: []}

    def record_duration(self, job: Job, seconds: float) -> None:
        """A job has ended: those of its kind are estimated by what it really took."""
        if sum(job.estimated_seconds) > 0:
            self._paces[bool(job.cells)].append(seconds / sum(job.estimated_seconds))

    def seconds_needed(self, job: Job) -> float:
        """Seconds to finish a training, or the cell of an evaluation that is the shortest."""
        paces = self._paces[bool(job.cells)]
        return min(job.estimated_seconds, default=0.0) * (median(paces) if paces else 1.0) * MARGIN

    def fits(self, job: Job) -> bool:
        """Whether a job may be started now."""
        if self.minutes is None:
            return True
        left = self.deadline - time.time()
        return left > 0 and (
            self.seconds_needed(job) <= left
            or (not job.cells and self.seconds_needed(job) > 60 * self.minutes)
        )

    def check(self, jobs: Iterable[Job]) -> None:
        """Raise ConfigError if no job at all fits."""
        jobs = list(jobs)
        if jobs and not any(self.fits(job) for job in jobs):
            shortest = min(jobs, key=self.seconds_needed)
            assert self.minutes is not None
            least = self.minutes + (self.seconds_needed(shortest) + time.time() - self.deadline) / 60
            raise ConfigError(
                f"runtime.max_minutes {self.minutes:g}: to plan and to do the shortest job that is left "
                f"({shortest.label}) takes about {least:.2g} minutes; give more"
            )
