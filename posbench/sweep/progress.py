"""Progress of a sweep: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from posbench import escaping
from posbench.sweep.jobs import Job


class ProgressDisplay(Protocol):
    """The interface of progress displays."""

    def job_started(self, job: Job) -> None: ...
    def job_progress(self, job: Job, done: int, total: int, note: str) -> None: ...
    def job_finished(self, job: Job, seconds: float) -> None: ...
    def job_failed(self, job: Job, error: str) -> None: ...
    def job_interrupted(self, job: Job) -> None: ...


class Lines:
    """Prints a line when a job ends."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.ended = jobs, 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def job_started(self, job: Job) -> None:
        """Prints nothing."""

    def job_progress(self, job: Job, done: int, total: int, note: str) -> None:
        """Prints nothing."""

    def job_finished(self, job: Job, seconds: float) -> None:
        self.say(f"{job.label} ({seconds:.0f} s)")

    def job_failed(self, job: Job, error: str) -> None:
        self.say(f"{job.label} FAILED: {error}")

    def job_interrupted(self, job: Job) -> None:
        self.say(f"{job.label}: time is up, to be continued")

    def say(self, text: str) -> None:
        self.ended += 1
        print(f"[{self.ended}/{self.jobs}] {text}", flush=True)


class Bars(Lines):
    """Shows a bar for each running job, below the lines of the jobs that ended."""

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[note]}"), transient=True)
        self.tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def job_started(self, job: Job) -> None:
        self.tasks[id(job)] = self.bars.add_task(escaping.terminal(job.label), total=None, note="")

    def job_progress(self, job: Job, done: int, total: int, note: str) -> None:
        self.bars.update(self.tasks[id(job)], completed=done, total=total, note=escaping.terminal(note))

    def say(self, text: str) -> None:
        self.ended += 1
        self.bars.console.print(f"[{self.ended}/{self.jobs}] {text}", markup=False, highlight=False)

    def job_finished(self, job: Job, seconds: float) -> None:
        self.bars.remove_task(self.tasks.pop(id(job)))
        super().job_finished(job, seconds)

    def job_failed(self, job: Job, error: str) -> None:
        self.bars.remove_task(self.tasks.pop(id(job)))
        super().job_failed(job, error)

    def job_interrupted(self, job: Job) -> None:
        self.bars.remove_task(self.tasks.pop(id(job)))
        super().job_interrupted(job)


def open_progress_display(jobs: int) -> Lines:
    """Returns bars if the output is a terminal, else lines."""
    return Bars(jobs) if Console().is_terminal else Lines(jobs)
