"""Views of a sweep: a board on a terminal, plain lines without one, and the report of posbench status, from one state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.live import Live
from rich.text import Text

from posbench.plan.job import Job
from posbench.sweep.state import DONE, FAILED, READY, RUNNING, UNNEEDED, WAITING, StateReader

REFRESH_SECONDS = 0.5
SUMMARY_SECONDS = 60.0  # between two plain lines that sum up
SHARE_OF_TIME = 0.05  # that reading the state may take
MAX_LINES = 20  # of each kind in a report


class Board:
    """Prints a line when a job ends; on a terminal, shows a report below, and elsewhere a summary every minute.

    Args:
        jobs: that are to be run.
    """

    def __init__(self, reader: StateReader, jobs: Iterable[Job]) -> None:
        self.reader, self.jobs, self.ended = reader, {job.name: job for job in jobs}, 0
        self.total, self.before = len(self.jobs), reader.records.copy()
        self.live = Live(transient=True, auto_refresh=False)
        self.next, self.next_summary = 0.0, time.monotonic() + SUMMARY_SECONDS

    def __enter__(self) -> Board:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh(is_last=True)
        self.live.stop()

    def refresh(self, is_last: bool = False) -> None:
        """Reads the state of the sweep and shows it, not more often than is useful."""
        began = time.monotonic()
        if began < self.next and not is_last:
            return
        self.reader.read()
        for line in self.ends(is_last):
            self.ended += 1
            self.say(f"[{self.ended}/{self.total}] {line}")
        lines = list(report(self.reader, [RUNNING]))
        self.live.update(Text("\n".join(lines)), refresh=True)
        if began >= self.next_summary and not self.live.console.is_terminal:
            self.say("; ".join(map(str.strip, lines[:2])))
            self.next_summary = began + SUMMARY_SECONDS
        now = time.monotonic()
        self.next = now + max(REFRESH_SECONDS, (now - began) / SHARE_OF_TIME)

    def ends(self, is_last: bool) -> Iterator[str]:
        """Yields a line for each job that has ended since the last time; one without a record when all have ended."""
        for job in self.reader.jobs[UNNEEDED]:
            self.total -= bool(self.jobs.pop(job.name, None))
        done = {job.name for job in self.reader.jobs[DONE]}
        for name, job in list(self.jobs.items()):
            record = self.reader.record(name)
            is_new = self.reader.records.get(name) != self.before.get(name)
            if is_new and record.get("outcome") == "failed":
                self.before[name] = self.reader.records[name]
                yield f"{job.label} FAILED: {record['error']}"
            elif name in done and (is_new or is_last):
                del self.jobs[name]
                yield (
                    f"{job.label} ({record['seconds']:.0f} s)"
                    if is_new and "seconds" in record
                    else job.label
                )

    def say(self, text: str) -> None:
        """Prints a line, above the report if there is one."""
        self.live.console.print(text, markup=False, highlight=False, soft_wrap=True)


def report(reader: StateReader, kinds: Iterable[str] = (RUNNING, FAILED, READY, WAITING)) -> Iterator[str]:
    """Yields lines about the sweep as its state was read last: the number of jobs, and the jobs of some kinds."""
    done, left, seconds = len(reader.jobs[DONE]), len(reader.left), reader.seconds_left()
    running, failed = len(reader.jobs[RUNNING]), len(reader.jobs[FAILED])
    parts = [f"{done} of {done + left} jobs done", f"{running} running"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{left - running - failed} to start"]
    parts += [f"about {format_duration(seconds)} left"] if left and seconds is not None else []
    yield ", ".join(parts)
    for kind in kinds:
        for job in reader.jobs[kind][:MAX_LINES]:
            note = running_note(reader.leases[job.name]) if kind == RUNNING else ""
            note = reader.record(job.name)["error"] if kind == FAILED else note
            yield f"  {kind}: {job.label}" + (f": {note}" if note else "")
        if (more := len(reader.jobs[kind]) - MAX_LINES) > 0:
            yield f"  {kind}: {more} more"


def running_note(lease: dict[str, Any]) -> str:
    """Returns how far a running job is and where it runs."""
    done, total, note = lease.get("progress", (0, 0, ""))
    parts = [f"{done}/{total}" if total else "starting", note]
    parts += [f"process {lease['pid']} on {lease['host'].split('-')[0]}" if "pid" in lease else ""]
    parts += [f"no sign for {format_duration(lease['age'])}" if lease.get("age", 0.0) > 60 else ""]
    return ", ".join(filter(None, parts))


def format_duration(seconds: float) -> str:
    """Returns a duration as text, such as "3 minutes"."""
    whole = max(1, round(seconds / 60))
    return f"{whole} minute{'s' if whole > 1 else ''}" if whole < 120 else f"{seconds / 3600:.1f} hours"


def format_cost(jobs: Sequence[Job]) -> str:
    """Returns the tokens and operations of jobs, such as "1.2 Mtokens, 3.2 GFLOP"."""
    texts, tokens, flops = [], sum(job.tokens for job in jobs), sum(job.flops for job in jobs)
    for number, unit in ((tokens, "tokens"), (flops, "FLOP")):
        power = min(5, int(math.log10(max(number, 1.0)) // 3))
        texts.append(f"{number / 1000**power:.3g} {'kMGTP'[power - 1] if power else ''}{unit}")
    return ", ".join(texts)
