"""The time budget of a sweep, for an allocation of limited time: jobs that would end too late do not start.

A training that takes longer than a whole time budget starts nevertheless and ends with a checkpoint, from which the
next run continues; otherwise it could never finish.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from statistics import median

from posbench.errors import ConfigError
from posbench.sweep.jobs import Job

# Factor on estimated seconds, which may come from a faster scheme.
MARGIN = 1.2


class TimeBudget:
    """A time budget that starts now.

    Attributes:
        minutes: the whole time budget; None is no limit.
        deadline: its end in seconds of `time.time()`, which is the same clock in all processes.
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
        """Records the seconds that a job took, which correct the estimates of the other jobs of its kind."""
        if sum(job.estimated_seconds) > 0:
            self._paces[bool(job.cells)].append(seconds / sum(job.estimated_seconds))

    def seconds_needed(self, job: Job) -> float:
        """Returns the seconds of a training, or of the shortest cell of an evaluation."""
        paces = self._paces[bool(job.cells)]
        return min(job.estimated_seconds, default=0.0) * (median(paces) if paces else 1.0) * MARGIN

    def fits(self, job: Job) -> bool:
        """Returns whether a job may start now."""
        if self.minutes is None:
            return True
        left = self.deadline - time.time()
        return left > 0 and (
            self.seconds_needed(job) <= left
            or (not job.cells and self.seconds_needed(job) > 60 * self.minutes)
        )

    def check(self, jobs: Iterable[Job]) -> None:
        """Raises ConfigError if no job fits."""
        jobs = list(jobs)
        if jobs and not any(self.fits(job) for job in jobs):
            shortest = min(jobs, key=self.seconds_needed)
            assert self.minutes is not None
            least = self.minutes + (self.seconds_needed(shortest) + time.time() - self.deadline) / 60
            raise ConfigError(
                f"runtime.max_minutes {self.minutes:g}: planning plus the shortest job that is left "
                f"({shortest.label}) takes about {least:.2g} minutes; give more"
            )
