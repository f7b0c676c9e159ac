"""Views of a sweep: a board on a terminal, plain lines without one, and the report of posbench status, from one state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from posbench import escaping
from posbench.plan.job import Job
from posbench.sweep.state import State, StateReader

REFRESH_SECONDS = 0.5
SUMMARY_SECONDS = 60.0  # between two plain lines that sum up
SHARE_OF_TIME = 0.05  # that reading the state may take
MAX_LINES = 20  # of each kind in a report


class Board:
    """Prints a line when a job ends; on a terminal, shows running jobs below, and elsewhere a summary every minute.

    Args:
        jobs: that are to be run.
    """

    def __init__(self, reader: StateReader, jobs: Iterable[Job]) -> None:
        self.reader, self.jobs, self.ended = reader, {job.name: job for job in jobs}, 0
        self.total = len(self.jobs)
        self.before = {name: reader.record(name) for name in self.jobs}
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.next, self.next_summary = 0.0, time.monotonic() + SUMMARY_SECONDS
        if (console := Console()).is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bars = Progress(*columns, TextColumn("{task.fields[note]}"), transient=True, console=console)

    def __enter__(self) -> Board:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh(force=True)
        if self.bars:
            self.bars.stop()

    def refresh(self, force: bool = False) -> None:
        """Reads the state of the sweep and shows it, not more often than is useful."""
        began = time.monotonic()
        if began < self.next and not force:
            return
        state = self.reader.read()
        for line in self.ends(state):
            self.ended += 1
            self.say(f"[{self.ended}/{self.total}] {line}")
        if self.bars:
            self.show(state)
        elif began >= self.next_summary:
            running = [f"{job.label} {running_line(lease)}" for job, lease in state.running.items()]
            self.say("; ".join([summary(state, self.reader.seconds_left(state)), *running[:1]]))
            self.next_summary = began + SUMMARY_SECONDS
        now = time.monotonic()
        self.next = now + max(REFRESH_SECONDS, (now - began) / SHARE_OF_TIME)

    def ends(self, state: State) -> Iterator[str]:
        """Yields a line for each job that has ended since the last time."""
        done = {job.name for job in state.done}
        for job in state.unneeded:
            if self.jobs.pop(job.name, None):
                self.total -= 1
        for name, job in list(self.jobs.items()):
            record = self.reader.record(name)
            is_new = record != self.before[name]
            if is_new and record.get("outcome") == "failed":
                self.before[name] = record
                yield f"{job.label} FAILED: {record['error']}"
            elif name in done and (is_new or name not in state.held):
                del self.jobs[name]
                yield f"{job.label} ({record.get('seconds', 0.0):.0f} s)" if is_new else job.label

    def show(self, state: State) -> None:
        """Shows a bar for each running job, and the whole sweep last."""
        assert self.bars
        now = {job.name: (job.label, progress_of(lease)) for job, lease in state.running.items()}
        for name in [name for name in self.tasks if name not in now]:
            self.bars.remove_task(self.tasks.pop(name))
        text = summary(state, self.reader.seconds_left(state))
        now["all"] = (text, (len(state.done), len(state.done) + len(state.left), ""))
        for name, (label, (done, total, note)) in now.items():
            if name not in self.tasks:
                self.tasks[name] = self.bars.add_task("", total=None, note="")
            self.bars.update(
                self.tasks[name],
                description=escaping.terminal(label),
                completed=done,
                total=total or None,
                note=escaping.terminal(note),
            )

    def say(self, text: str) -> None:
        """Prints a line, above the bars if there are some."""
        if self.bars:
            self.bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)


def progress_of(lease: dict[str, Any]) -> tuple[int, int, str]:
    """Returns the steps or cells of a running job that are done, their total, and a note."""
    done, total, note = lease.get("progress") or (0, 0, "")
    return done, total, note


def summary(state: State, seconds_left: float | None) -> str:
    """Returns a line with the number of jobs of each kind and the time left."""
    total = len(state.done) + len(state.left)
    parts = [f"{len(state.done)} of {total} jobs done", f"{len(state.running)} running"]
    parts += [f"{len(state.failed)} failed"] if state.failed else []
    parts += [f"{len(state.ready) + len(state.waiting)} to start"]
    if state.left and seconds_left is not None:
        parts.append(f"about {format_duration(seconds_left)} left")
    return ", ".join(parts)


def report(name: str, reader: StateReader) -> Iterator[str]:
    """Yields the lines of the report about a sweep, given the name of its experiment."""
    state = reader.read()
    yield f"{name}: {summary(state, reader.seconds_left(state))}"
    kinds = {
        "running": [(job, running_line(lease)) for job, lease in state.running.items()],
        "failed": [(job, record.get("error", "")) for job, record in state.failed.items()],
        "to start": [(job, "") for job in state.ready],
        "waits for a model": [(job, "") for job in state.waiting],
    }
    for kind, jobs in kinds.items():
        for job, note in jobs[:MAX_LINES]:
            yield f"  {kind}: {job.label}" + (f": {note}" if note else "")
        if len(jobs) > MAX_LINES:
            yield f"  {kind}: {len(jobs) - MAX_LINES} more"


def running_line(lease: dict[str, Any]) -> str:
    """Returns where a job runs and how far it is."""
    done, total, note = progress_of(lease)
    parts = [f"{done}/{total}" if total else "starting", note]
    parts += [f"process {lease['pid']} on {lease['host'].split('-')[0]}" if "pid" in lease else ""]
    parts += [f"no sign for {format_duration(lease['age'])}" if lease.get("age", 0.0) > 60 else ""]
    return ", ".join(filter(None, parts))


def format_duration(seconds: float) -> str:
    """Returns a duration as text, such as "3 minutes"."""
    whole = max(1, round(seconds / 60))
    return f"{whole} minute{'s' if whole > 1 else ''}" if whole < 120 else f"{seconds / 3600:.1f} hours"


def format_amount(number: float, unit: str) -> str:
    """Returns a large number with its unit, such as "3.2 MFLOP"."""
    power = min(5, max(0, int(math.log10(max(number, 1.0)) // 3)))
    return f"{number / 1000**power:.3g} {'kMGTP'[power - 1] if power else ''}{unit}"
