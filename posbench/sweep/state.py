"""The state of a sweep, from the results folder alone; every view and every worker reads it here, without torch."""

from __future__ import annotations

import datetime
import os
import time
from collections import Counter
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from posbench import checksums
from posbench.config.schema import RuntimeSettings
from posbench.evaluation.results_folder import ResultsFolder
from posbench.files import host, is_dead, write_bytes, write_text
from posbench.plan.job import Job
from posbench.plan.lr_selection import best_rate
from posbench.plan.sweep_file import Sweep
from posbench.sweep.claims import LEASE, read_lease

# States of a job. DONE: all its files are there. UNNEEDED: it belongs to a rate of grid.lr that was not selected. The
# others are left to do: they can start, failed when they ran last, are held by a process, or need a model that is not
# trained yet.
DONE, UNNEEDED = "done", "unneeded"
LEFT = READY, FAILED, RUNNING, WAITING = "to start", "failed", "running", "waits for a model"


class StateReader:
    """Reads the state of a sweep; remembers what never changes from one reading to the next.

    Args:
        runtime: of a process that measures cells; what did not fit in the memory of another device is not done for it.
            Without it, as on a login node, it is.

    Attributes:
        jobs: by what they are, as read last.
        cells, models: ids of those that are there.
        required: ids of the models that must be trained.
        best: the selected rate for each choice of rates.
        leases, records: of running jobs, and of how each job ended last with the time of the file, by name.
    """

    def __init__(
        self, sweep: Sweep, results_folder: ResultsFolder, runtime: RuntimeSettings | None = None
    ) -> None:
        self.sweep, self.results_folder, self.runtime = sweep, results_folder, runtime
        self.jobs: dict[str, list[Job]] = {}
        self.cells: set[str] = set()
        self.models: set[str] = set()
        self.required: set[str] = set()
        self.best: dict[tuple[tuple[str, ...], ...], int | None] = {}
        self.leases: dict[str, dict[str, Any]] = {}
        self.records: dict[str, tuple[float, dict[str, Any]]] = {}

    @property
    def left(self) -> list[Job]:
        """All jobs that are neither done nor unneeded."""
        return [job for kind in LEFT for job in self.jobs[kind]]

    def verify(self) -> None:
        """Reads the state; sets damaged rows and models aside, so that they count as missing."""
        for cell in chain(*(job.cells for job in self.sweep.jobs)):
            self.results_folder.store.has(cell)
        self.read()
        self.models -= {one for one in self.required & self.models if not self.results_folder.is_trained(one)}
        self.best.clear()  # rates that were selected beside a damaged model
        self.read()

    def read(self) -> StateReader:
        """Reads the state and returns this reader."""
        self._read_files()
        # A model is required for cells that are missing or, without cells, because the plan is to train it.
        measured = {job.model for job in self.sweep.jobs if job.cells}
        trainings = list(self.sweep.trains.values())
        self.required = {job.model for job in trainings if not job.requires} - measured
        for job in [*(job for job in self.sweep.jobs if job.cells), *trainings]:
            if not self.is_done(job) and not self.is_unneeded(job):
                self.required.update(job.inputs)
        self.jobs = {kind: [] for kind in (DONE, UNNEEDED, *LEFT)}
        for job in self.sweep.jobs:
            self.jobs[self._kind(job)].append(job)
        return self

    def _kind(self, job: Job) -> str:
        if self.is_done(job):
            return DONE
        if self.is_unneeded(job):
            return UNNEEDED
        if job.name in self.leases:
            return RUNNING
        if self.record(job.name).get("outcome") == "failed":
            return FAILED
        return READY if self.has_inputs(job) else WAITING

    def is_done(self, job: Job) -> bool:
        """Returns whether all that is required of a job is there."""
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
        """Returns the record of how a job ended last; empty without one."""
        return self.records.get(name, (0.0, {}))[1]

    def seconds_left(self) -> float | None:
        """Estimates the seconds until the end from those of finished jobs of each kind; None if none has finished."""
        seconds, flops, left = Counter[bool](), Counter[bool](), 0.0
        for job in self.jobs[DONE]:
            seconds[bool(job.cells)] += self.record(job.name).get("seconds", 0.0)
            flops[bool(job.cells)] += self.record(job.name).get("flops", 0.0)
        speeds = {kind: flops[kind] / seconds[kind] for kind in flops if flops[kind] and seconds[kind]}
        if not speeds:
            return None
        for job in self.left:
            done, total, _ = self.leases.get(job.name, {}).get("progress", (0, 1, ""))
            part = 1.0 - done / max(1, total)
            left += part * job.flops / speeds.get(bool(job.cells), max(speeds.values()))
        return left / max(1, len(self.jobs[RUNNING]))

    def _read_files(self) -> None:
        present = {entry.name for entry in self._entries("cells")}
        for cell in chain(*(job.cells for job in self.sweep.jobs)):
            if cell not in self.cells and f"{cell}.parquet" in present and self._fits(cell):
                self.cells.add(cell)
        for entry in self._entries("jobs"):
            name, kind = os.path.splitext(entry.name)
            with suppress(OSError):  # replaced just now
                if kind != ".json" or self.records.get(name, (0.0,))[0] == (changed := entry.stat().st_mtime):
                    continue
                # One that cannot be read is read again.
                if record := read_record(self.results_folder, name):
                    self.records[name] = changed, record
        self.leases = {}
        for entry in self._entries("locks"):
            if match := LEASE.fullmatch(entry.name):
                lease = read_lease(Path(entry.path))
                if lease.get("host") == host() and is_dead(lease.get("pid", 0), None, 0.0):
                    continue
                with suppress(OSError):  # released just now
                    lease["age"] = max(0.0, time.time() - entry.stat().st_mtime)
                self.leases[match[1]] = lease

    def _fits(self, cell: str) -> bool:
        if self.runtime:
            return self.results_folder.is_evaluated(cell, self.runtime, verify=False)
        kernel = self.sweep.runtime.kernel
        return kernel == "auto" or self.results_folder.store.is_of_kernel(cell, kernel)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.results_folder.path / folder) as found:
                return list(found)
        except OSError:
            return []


def read_record(results_folder: ResultsFolder, name: str) -> dict[str, Any]:
    """Returns the record of how a job ended last; empty without one that can be read."""
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
