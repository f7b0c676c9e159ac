"""The state of a sweep, from the results folder alone; every view and every worker reads it here, without torch."""

from __future__ import annotations

import datetime
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from posbench import checksums
from posbench.config.schema import RuntimeSettings
from posbench.evaluation.results_folder import ResultsFolder
from posbench.files import is_dead, write_bytes, write_text
from posbench.plan.job import Job
from posbench.plan.lr_selection import best_rate
from posbench.plan.sweep_file import Sweep
from posbench.sweep.claims import LEASE, host, read_lease


@dataclass
class State:
    """The jobs of a sweep by what they are at one moment.

    Attributes:
        done: with all files there.
        unneeded: of a rate of grid.lr that was not selected.
        failed: that failed when they ran last, with the record of the failure.
        running: that a process holds, with its lease.
        ready: that could start.
        waiting: for the training of a model.
    """

    done: list[Job] = field(default_factory=list)
    unneeded: list[Job] = field(default_factory=list)
    failed: dict[Job, dict[str, Any]] = field(default_factory=dict)
    running: dict[Job, dict[str, Any]] = field(default_factory=dict)
    ready: list[Job] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)

    @property
    def left(self) -> list[Job]:
        """All jobs that are neither done nor unneeded."""
        return [*self.ready, *self.failed, *self.running, *self.waiting]


class StateReader:
    """Reads the state of a sweep; remembers what never changes from one reading to the next.

    Args:
        runtime: of a process that measures cells; what did not fit in the memory of another device is not done for it.

    Attributes:
        state: as it was read last.
        cells, models: ids of those that are there.
        required: ids of the models that must be trained.
        best: the selected rate for each choice of rates.
        records: how each job ended last, with the time of the file.
    """

    def __init__(
        self, sweep: Sweep, results_folder: ResultsFolder, runtime: RuntimeSettings | None = None
    ) -> None:
        self.sweep, self.results_folder, self.runtime = sweep, results_folder, runtime
        self.state = State()
        self.cells: set[str] = set()
        self.models: set[str] = set()
        self.required: set[str] = set()
        self.best: dict[tuple[tuple[str, ...], ...], int | None] = {}
        self.records: dict[str, tuple[float, dict[str, Any]]] = {}

    def verify(self) -> None:
        """Sets damaged rows and models aside, so that they count as missing from here on."""
        for job in self.sweep.jobs:
            for cell in job.cells:
                self.results_folder.store.has(cell)
        self.read()
        for model in self.required & self.models:
            if not self.results_folder.is_trained(model):
                self.models.remove(model)

    def read(self) -> State:
        """Reads the state."""
        self._read_cells()
        self._read_records()
        leases, jobs = self._read_leases(), self.sweep.jobs
        # A model is required for cells that are missing or, without cells, because the plan is to train it.
        measured = {job.model for job in jobs if job.cells}
        self.required = {job.model for job in jobs if not job.cells and not job.requires} - measured
        for job in sorted(
            jobs, key=lambda job: not job.cells
        ):  # then base models, for what is tuned from them
            is_required = bool(job.cells) or job.model in self.required
            if is_required and not self.is_done(job) and not self.is_unneeded(job):
                self.required.update(job.inputs)
        state = self.state = State()
        for job in jobs:
            if self.is_done(job):
                state.done.append(job)
            elif self.is_unneeded(job):
                state.unneeded.append(job)
            elif job.name in leases:
                state.running[job] = leases[job.name]
            elif self.record(job.name).get("outcome") == "failed":
                state.failed[job] = self.record(job.name)
            else:
                (state.ready if self.has_inputs(job) else state.waiting).append(job)
        return state

    def is_done(self, job: Job) -> bool:
        """Returns whether all that is required of a job was there when the state was read last."""
        if job.cells:
            return self.cells.issuperset(job.cells)
        return job.model not in self.required or self.has_model(job.model)

    def has_model(self, model: str) -> bool:
        """Returns whether a model is trained."""
        if model not in self.models and self.results_folder.has_model(model):
            self.models.add(model)
        return model in self.models

    def has_inputs(self, job: Job) -> bool:
        """Returns whether all models that a job needs are trained."""
        return all(map(self.has_model, job.inputs))

    def is_unneeded(self, job: Job) -> bool:
        """Returns whether another learning rate than that of the job was selected."""
        if not job.rates or not all(map(self.has_model, chain(*job.rates))):
            return False
        if job.rates not in self.best:
            self.best[job.rates] = best_rate(job.rates, self.results_folder.path / "models")
        return self.best[job.rates] != job.rate

    def record(self, name: str) -> dict[str, Any]:
        """Returns the record of how a job ended last, as it was read last; empty without one."""
        return self.records.get(name, (0.0, {}))[1]

    def seconds_left(self) -> float | None:
        """Estimates the seconds until the end from those of finished jobs of each kind; None if none has finished."""
        seconds, flops, left = Counter[bool](), Counter[bool](), 0.0
        for job in self.state.done:
            seconds[bool(job.cells)] += self.record(job.name).get("seconds", 0.0)
            flops[bool(job.cells)] += self.record(job.name).get("flops", 0.0)
        speeds = {kind: flops[kind] / seconds[kind] for kind in flops if flops[kind] and seconds[kind]}
        if not speeds:
            return None
        for job in self.state.left:
            done, total, _ = self.state.running.get(job, {}).get("progress", (0, 1, ""))
            part = 1.0 - done / max(1, total)
            left += part * job.flops / speeds.get(bool(job.cells), max(speeds.values()))
        return left / max(1, len(self.state.running))

    def _read_cells(self) -> None:
        present = {entry.name for entry in self._entries("cells")}
        missing = {cell for job in self.sweep.jobs for cell in job.cells} - self.cells
        found = {cell for cell in missing if f"{cell}.parquet" in present}
        if self.runtime:
            found = {
                cell for cell in found if self.results_folder.is_evaluated(cell, self.runtime, verify=False)
            }
        self.cells |= found

    def _read_records(self) -> None:
        for entry in self._entries("jobs"):
            name, kind = os.path.splitext(entry.name)
            if kind == ".json" and self.records.get(name, (0.0,))[0] != (changed := entry.stat().st_mtime):
                self.records[name] = changed, read_record(self.results_folder, name)

    def _read_leases(self) -> dict[str, dict[str, Any]]:
        """Returns the leases that may be of live processes by job, with the seconds since they were written in `age`."""
        found = {}
        for entry in self._entries("locks"):
            if match := LEASE.fullmatch(entry.name):
                lease = read_lease(Path(entry.path))
                if not (lease.get("host") == host() and is_dead(lease.get("pid", 0), None, 0.0)):
                    with suppress(OSError):  # released just now
                        lease["age"] = max(0.0, time.time() - entry.stat().st_mtime)
                    found[match[1]] = lease
        return found

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.results_folder.path / folder) as found:
                return list(found)
        except OSError:
            return []


def read_record(results_folder: ResultsFolder, name: str) -> dict[str, Any]:
    """Returns the record of how a job ended last; empty without one."""
    try:
        return checksums.read_json(results_folder.path / "jobs" / f"{name}.json")
    except (OSError, checksums.DamageError):
        return {}


def write_record(
    results_folder: ResultsFolder, job: Job, run: str, traceback: str = "", **content: Any
) -> None:
    """Records how a job ended, in jobs/NAME.json, and the traceback of a failure beside it in NAME.log."""
    folder = results_folder.path / "jobs"
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    document = {"label": job.label, "run": run, "host": host(), "pid": os.getpid(), "date": date, **content}
    if traceback:
        write_text(folder / f"{job.name}.log", traceback)
    write_bytes(folder / f"{job.name}.json", checksums.dump_json(document))
