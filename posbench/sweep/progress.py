"""Progress of a sweep: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from posbench.sweep.jobs import Job


class Lines:
    """A line when a job ends."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.ended = jobs, 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, job: Job) -> None:
        """Nothing: a line at the end says all."""

    def told(self, job: Job, done: int, total: int, note: str) -> None:
        """Nothing, likewise."""

    def finished(self, job: Job, seconds: float) -> None:
        self.say(f"{job.label} ({seconds:.0f} s)")

    def failed(self, job: Job, why: str) -> None:
        self.say(f"{job.label} FAILED: {why}")

    def unfinished(self, job: Job) -> None:
        self.say(f"{job.label}: time is up, to be continued")

    def say(self, text: str) -> None:
        self.ended += 1
        print(f"[{self.ended}/{self.jobs}] {text}", flush=True)


class Bars(Lines):
    """A bar for each running job, above them the lines of those that ended."""

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, TextColumn("{task.fields[note]}"), transient=True)
        self.tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def started(self, job: Job) -> None:
        self.tasks[id(job)] = self.progress.add_task(job.label, total=None, note="")

    def told(self, job: Job, done: int, total: int, note: str) -> None:
        self.progress.update(self.tasks[id(job)], completed=done, total=total, note=note)

    def say(self, text: str) -> None:
        self.ended += 1
        self.progress.console.print(f"[{self.ended}/{self.jobs}] {text}", markup=False, highlight=False)

    def finished(self, job: Job, seconds: float) -> None:
        self.progress.remove_task(self.tasks.pop(id(job)))
        super().finished(job, seconds)

    def failed(self, job: Job, why: str) -> None:
        self.progress.remove_task(self.tasks.pop(id(job)))
        super().failed(job, why)

    def unfinished(self, job: Job) -> None:
        self.progress.remove_task(self.tasks.pop(id(job)))
        super().unfinished(job)


def board(jobs: int) -> Lines:
    """Bars where somebody watches, lines where a file does."""
    return Bars(jobs) if Console().is_terminal else Lines(jobs)
