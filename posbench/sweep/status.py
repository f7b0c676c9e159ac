"""Views of a sweep: a board on a terminal, plain lines without one, and the report of posbench status, from one state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from posbench.plan.job import Job
from posbench.sweep.state import StateReader

REFRESH_SECONDS = 0.5
SUMMARY_SECONDS = 60.0  # between two plain lines that sum up
SHARE_OF_TIME = 0.05  # that reading the state may take
MAX_LINES = 20  # of each kind in a report
KINDS = ("running", "failed", "to start", "waits for a model")


class Board:
    """Prints a line when a job ends; on a terminal, shows a report below, and elsewhere a summary every minute.

    Args:
        jobs: that are to be run.
    """

    def __init__(self, reader: StateReader, jobs: Iterable[Job]) -> None:
        self.reader, self.jobs, self.ended = reader, {job.name: job for job in jobs}, 0
        self.total, self.before = len(self.jobs), dict(reader.records)
        self.live = Live(transient=True, auto_refresh=False) if Console().is_terminal else None
        self.next, self.next_summary = 0.0, time.monotonic() + SUMMARY_SECONDS

    def __enter__(self) -> Board:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh(is_last=True)
        if self.live:
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
        lines = list(report(self.reader, ["running"]))
        if self.live:
            self.live.update(Text("\n".join(lines)), refresh=True)
        elif began >= self.next_summary:
            self.say("; ".join(map(str.strip, lines[:2])))
            self.next_summary = began + SUMMARY_SECONDS
        now = time.monotonic()
        self.next = now + max(REFRESH_SECONDS, (now - began) / SHARE_OF_TIME)

    def ends(self, is_last: bool) -> Iterator[str]:
        """Yields a line for each job that has ended since the last time; one without a record when all have ended."""
        for job in self.reader.state.unneeded:
            self.total -= bool(self.jobs.pop(job.name, None))
        done = {job.name for job in self.reader.state.done}
        for name, job in list(self.jobs.items()):
            record = self.reader.records.get(name)
            is_new = record != self.before.get(name)
            if is_new and record and record[1].get("outcome") == "failed":
                self.before[name] = record
                yield f"{job.label} FAILED: {record[1]['error']}"
            elif name in done and (is_new or is_last):
                del self.jobs[name]
                yield (
                    f"{job.label} ({record[1].get('seconds', 0.0):.0f} s)" if is_new and record else job.label
                )

    def say(self, text: str) -> None:
        """Prints a line, above the report if there is one."""
        if self.live:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)


def report(reader: StateReader, kinds: Iterable[str] = KINDS) -> Iterator[str]:
    """Yields lines about the sweep as its state was read last: the number of jobs, and the jobs of some kinds."""
    state = reader.state
    total, seconds_left = len(state.done) + len(state.left), reader.seconds_left()
    parts = [f"{len(state.done)} of {total} jobs done", f"{len(state.running)} running"]
    parts += [f"{len(state.failed)} failed"] if state.failed else []
    parts += [f"{len(state.ready) + len(state.waiting)} to start"]
    parts += (
        [f"about {format_duration(seconds_left)} left"] if state.left and seconds_left is not None else []
    )
    yield ", ".join(parts)
    running = [f"{job.label}: {running_note(lease)}" for job, lease in state.running.items()]
    failed = [f"{job.label}: {record['error']}" for job, record in state.failed.items()]
    ready, waiting = ([job.label for job in jobs] for jobs in (state.ready, state.waiting))
    for kind, lines in zip(KINDS, (running, failed, ready, waiting), strict=True):
        if kind in kinds:
            more = [f"{len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
            yield from (f"  {kind}: {line}" for line in lines[:MAX_LINES] + more)


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
    texts = []
    for unit, number in {
        "tokens": sum(job.tokens for job in jobs),
        "FLOP": sum(job.flops for job in jobs),
    }.items():
        power = min(5, int(math.log10(max(number, 1.0)) // 3))
        texts.append(f"{number / 1000**power:.3g} {'kMGTP'[power - 1] if power else ''}{unit}")
    return ", ".join(texts)
