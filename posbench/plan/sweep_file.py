"""A sweep as a file, sweeps/<id>.json: its settings, models, cells and jobs, from which any process can run a job.

It holds settings and no code: classes are created by posbench.instantiate, as from a config file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from posbench import checksums
from posbench.config.lm import LMSettings
from posbench.config.schema import (
    ExtensionSettings,
    ModelSettings,
    RuntimeSettings,
    TaskSettings,
    TrainSettings,
)
from posbench.config.validation import check_partial, to_settings, validate
from posbench.errors import DataError, PosbenchError
from posbench.files import write_bytes
from posbench.identity import identity
from posbench.plan.job import Job

if TYPE_CHECKING:
    from posbench.plan.cell import Cell, ModelPlan, Plan

FORMAT = 1
STARTS = ("launcher", "wait", "slurm", "ray", "num_workers", "workers_per_gpu", "results_dir")
# Names from the file that become names of files.
SAFE = re.compile(r"[\w+-][\w.+-]*")


class Assignment(NamedTuple):
    """The arguments with which a worker is started.

    Attributes:
        results_dir: the results folder.
        sweep: id of the sweep in it.
        run: id of the command that starts it.
        packages: packages outside posbench whose classes it may use.
        deadline: when it stops, by time.monotonic() of the machine that has started it.
        processes_per_gpu: number of workers that share a GPU and its memory.
        retries: whether a job has failed under an earlier command, whose workers do not try it again.
    """

    results_dir: Path
    sweep: str
    run: str
    packages: frozenset[str]
    deadline: float = math.inf
    retries: bool = False
    processes_per_gpu: int = 1


def make_sweep(name: str, plan: Plan, jobs: list[Job], runtime: RuntimeSettings) -> Sweep:
    """Returns a sweep in the form in which it is written.

    Args:
        name: of the experiment.
    """
    extensions: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    cells = {}
    for cell in plan.cells:
        extension, task = asdict(cell.extension), asdict(cell.task)
        keys = identity(extension), identity(task)
        extensions[keys[0]], tasks[keys[1]] = extension, task
        versions = [cell.extension_version, cell.task_version]
        cells[cell.id] = [cell.model.id, *keys, *versions, cell.length, cell.seed, cell.dtype]
    document = {
        "format": FORMAT,
        "name": name,
        # How workers are started is no part of the sweep, so that those of another start are known as its own.
        "runtime": {key: value for key, value in asdict(runtime).items() if key not in STARTS},
        "jobs": [asdict(job) for job in jobs],
        "models": {model.id: _model_document(model) for model in plan.all_models},
        "extensions": extensions,
        "tasks": tasks,
        "cells": cells,
    }
    return Sweep(identity(document), name, runtime, jobs, document)


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Writes a sweep into a results folder."""
    write_bytes(folder / "sweeps" / f"{sweep.id}.json", checksums.dump_json(sweep.document))


def _model_document(model: ModelPlan) -> dict[str, Any]:
    tuning = model.fine_tuning
    return {
        "settings": asdict(model.settings),
        "corpus": model.corpus,
        "version": model.version,
        "pretrained": asdict(model.pretrained.settings) if model.pretrained else None,
        "fine_tuning": tuning
        and {
            "base_model": tuning.base_model.id,
            "extension": asdict(tuning.extension),
            "extension_version": tuning.extension_version,
            "train": asdict(tuning.train),
        },
    }


def read_sweep(folder: Path, sweep: str) -> Sweep:
    """Reads a sweep of a results folder; raises DataError if it is missing or damaged, or of another version."""
    path = folder / "sweeps" / f"{sweep}.json"
    try:
        document = checksums.read_json(path)
        if document["format"] != FORMAT:
            raise checksums.DamageError(f"format {document['format']}, this version reads {FORMAT}")
        jobs = [Job.from_document(one) for one in document["jobs"]]
        names = [name for job in jobs for name in (job.name, job.model, *job.cells)]
        if not all(map(SAFE.fullmatch, names)):
            raise checksums.DamageError("a name that is no file name")
        return Sweep(sweep, document["name"], _settings(RuntimeSettings, document["runtime"]), jobs, document)
    except FileNotFoundError:
        known = ", ".join(find_sweeps(folder))
        remedy = (
            f"give one of {known}" if known else "run posbench sweep first, or give another results folder"
        )
        raise DataError(f"no sweep {sweep!r} in {folder}: {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, PosbenchError) as error:
        raise DataError(
            f"{path} cannot be used ({error}): run posbench sweep again with the same settings"
        ) from None


def find_sweeps(folder: Path) -> list[str]:
    """Returns the ids of the sweeps of a results folder, the last written first."""
    paths = [(path.stat().st_mtime, path.stem) for path in (folder / "sweeps").glob("*.json")]
    return [sweep for _, sweep in sorted(paths, reverse=True)]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep that was read from its file.

    Attributes:
        id: hash of its content.
        name: of the experiment.
        jobs: all, done or not, in the order in which they start.
    """

    id: str
    name: str
    runtime: RuntimeSettings
    jobs: list[Job]
    document: Mapping[str, Any]

    @cached_property
    def trains(self) -> dict[str, Job]:
        """The training of each model, by model id."""
        return {job.model: job for job in self.jobs if not job.cells}

    @cache  # noqa: B019 - a process has one sweep
    def model(self, model: str) -> ModelPlan:
        """Returns a model by its id."""
        from posbench.plan.cell import FineTuning, ModelPlan

        content = self.document["models"][model]
        settings = _settings(ModelSettings, content["settings"])
        if content["pretrained"]:
            from posbench.plan.pretrained import plan_pretrained

            found = plan_pretrained(_settings(LMSettings, content["pretrained"]), settings.data)
        else:
            tuning = content["fine_tuning"] and FineTuning(
                self.model(content["fine_tuning"]["base_model"]),
                _settings(ExtensionSettings, content["fine_tuning"]["extension"]),
                content["fine_tuning"]["extension_version"],
                _settings(TrainSettings, content["fine_tuning"]["train"]),
            )
            found = ModelPlan(settings, content["corpus"], content["version"], tuning)
        return _verified(found, model)

    def cell(self, cell: str) -> Cell:
        """Returns a cell by its id."""
        from posbench.plan.cell import Cell

        model, extension, task, extension_version, task_version, *rest = self.document["cells"][cell]
        extension = _settings(ExtensionSettings, self.document["extensions"][extension])
        task = _settings(TaskSettings, self.document["tasks"][task])
        return _verified(
            Cell(self.model(model), extension, extension_version, task, task_version, *rest), cell
        )


def _settings(schema: Any, content: Any) -> Any:
    """Returns an object of a settings class, whose values are checked as those of a command line are."""
    check_partial("", content, schema)
    found = to_settings(content, schema)
    validate(found)
    return found


def _verified(found: Any, expected: str) -> Any:
    if found.id != expected:
        raise DataError(
            f"{expected} of the sweep has the id {found.id} here, so its code or files differ between the machines: "
            "install one version of posbench on all, then run posbench sweep again"
        )
    return found
