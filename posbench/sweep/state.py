"""The state of a sweep, from the results folder alone; every view and every worker reads it here, without torch."""

from __future__ import annotations

import datetime
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posbench import checksums
from posbench.config.schema import RuntimeSettings
from posbench.evaluation.results_folder import ResultsFolder
from posbench.files import is_dead, write_bytes, write_text
from posbench.plan.job import Job
from posbench.plan.lr_selection import best_rate
from posbench.plan.sweep_file import Sweep
from posbench.sweep.claims import LEASE, host, parse_lease


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
        held: names of all jobs with a lease, also of those that are done but for their record.
    """

    done: list[Job] = field(default_factory=list)
    unneeded: list[Job] = field(default_factory=list)
    failed: dict[Job, dict[str, Any]] = field(default_factory=dict)
    running: dict[Job, dict[str, Any]] = field(default_factory=dict)
    ready: list[Job] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    @property
    def left(self) -> list[Job]:
        """All jobs that are neither done nor unneeded."""
        return [*self.running, *self.ready, *self.waiting, *self.failed]


class StateReader:
    """Reads the state of a sweep; remembers what never changes from one reading to the next.

    Args:
        runtime: of a process that measures cells; what did not fit in the memory of another device is not done for it.
    """

    def __init__(
        self, sweep: Sweep, results_folder: ResultsFolder, runtime: RuntimeSettings | None = None
    ) -> None:
        self.sweep, self.results_folder, self.runtime = sweep, results_folder, runtime
        self.state = State()  # as it was read last
        self.models: set[str] = set()
        self.cells: set[str] = set()
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
        present = _names(self.results_folder.path / "cells")
        state, leases, records = State(), self._leases(), self._records()
        state.held = set(leases)
        evaluations = [job for job in self.sweep.jobs if job.cells]
        measured = {job.model for job in evaluations}
        # A model whose cells are all measured is not required. One without cells is: the plan is to train it.
        self.required = {model for model, job in self.sweep.trains.items() if not job.requires} - measured
        for job in evaluations:
            if not self.is_measured(job, present) and not self.is_unneeded(job):
                self.required.update(job.requires, *job.rates)
        for job in self.sweep.trains.values():  # a base model is required for what is fine-tuned from it
            if job.model in self.required and not self.has_model(job.model):
                self.required.update(job.requires, *job.rates)
        for job in self.sweep.jobs:
            is_done = (
                self.is_measured(job, present)
                if job.cells
                else job.model not in self.required or self.has_model(job.model)
            )
            if is_done:
                state.done.append(job)
            elif self.is_unneeded(job):
                state.unneeded.append(job)
            elif job.name in leases:
                state.running[job] = leases[job.name]
            elif records.get(job.name, {}).get("outcome") == "failed":
                state.failed[job] = records[job.name]
            elif self.has_inputs(job):
                state.ready.append(job)
            else:
                state.waiting.append(job)
        self.state = state
        return state

    def is_measured(self, job: Job, present: set[str]) -> bool:
        """Returns whether all cells of a job have rows, given the names of the files of cells."""
        for cell in job.cells:
            if cell not in self.cells and f"{cell}.parquet" in present and self._fits(cell):
                self.cells.add(cell)
        return self.cells.issuperset(job.cells)

    def _fits(self, cell: str) -> bool:
        return self.runtime is None or self.results_folder.is_evaluated(cell, self.runtime, verify=False)

    def has_cell(self, cell: str) -> bool:
        """Returns whether a cell was measured when the state was read last."""
        return cell in self.cells

    def record(self, name: str) -> dict[str, Any]:
        """Returns the record of how a job ended last, as it was read last; empty without one."""
        return self.records.get(name, (0.0, {}))[1]

    def has_model(self, model: str) -> bool:
        """Returns whether a model is trained."""
        if model not in self.models and self.results_folder.has_model(model):
            self.models.add(model)
        return model in self.models

    def has_inputs(self, job: Job) -> bool:
        """Returns whether all models that a job needs are trained, also those that compete with its own."""
        rivals = (model for models in job.rates for model in models)
        return all(map(self.has_model, (*job.requires, *rivals)))

    def is_unneeded(self, job: Job) -> bool:
        """Returns whether another learning rate than that of the job was selected."""
        if not job.rates or not all(self.has_model(model) for models in job.rates for model in models):
            return False
        if job.rates not in self.best:
            self.best[job.rates] = best_rate(job.rates, self.results_folder.path / "models")
        return self.best[job.rates] != job.rate

    def _leases(self) -> dict[str, dict[str, Any]]:
        """The leases of processes that are alive, or of which another machine must know, by the name of the job."""
        folder, found = self.results_folder.path / "locks", {}
        for name in _names(folder):
            if match := LEASE.fullmatch(name):
                lease = read_lease(folder / name)
                if not (lease.get("host") == host() and is_dead(lease.get("pid", 0), None, 0.0)):
                    found[match[1]] = lease
        return found

    def _records(self) -> dict[str, dict[str, Any]]:
        folder, found = self.results_folder.path / "jobs", {}
        for entry in _entries(folder):
            name, kind = os.path.splitext(entry.name)
            if kind == ".json":
                changed = entry.stat().st_mtime
                if self.records.get(name, (None,))[0] != changed:
                    self.records[name] = changed, read_record(self.results_folder, name)
                found[name] = self.records[name][1]
        return found

    def seconds_left(self, state: State) -> float | None:
        """Estimates the seconds until the end from those of finished jobs; None if none has finished."""
        speeds = {}
        for kind in (True, False):
            ended = [
                self.records[job.name][1]
                for job in state.done
                if bool(job.cells) is kind and job.name in self.records
            ]
            seconds = sum(one.get("seconds", 0.0) for one in ended)
            if seconds:
                speeds[kind] = sum(one.get("flops", 0.0) for one in ended) / seconds
        if not speeds:
            return None
        left = 0.0
        for job in state.left:
            done, total, _ = state.running.get(job, {}).get("progress", (0, 0, ""))
            part = 1.0 - done / total if total else 1.0
            left += (
                part * job.flops / (speeds.get(bool(job.cells)) or next(iter(speeds.values())) or math.inf)
            )
        return left / max(1, len(state.running))


def read_lease(path: Path) -> dict[str, Any]:
    """Reads a lease, with the seconds since it was written in `age` if the machine that wrote it is another one."""
    try:
        lease = parse_lease(path.read_bytes())
        return lease | {"age": max(0.0, time.time() - path.stat().st_mtime)}
    except OSError:  # released just now
        return {}


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


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in _entries(folder)}
