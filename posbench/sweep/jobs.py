"""One job of a sweep: train a model, or measure some cells on one; what several processes may try at once."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from filelock import BaseFileLock, FileLock, Timeout

from posbench.config.schema import ExtensionSettings, RuntimeSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.errors import ConfigError
from posbench.results.rows import Store
from posbench.runtime.device import pick_device
from posbench.runtime.distributed import world
from posbench.sweep.evaluator import Trained, device_name
from posbench.sweep.grid import NONE
from posbench.sweep.oom_report import said_of
from posbench.sweep.plan import Cell, ModelPlan, extended
from posbench.sweep.pretrained import opened
from posbench.tracking.wandb import Mirror, WandbSettings, open_mirror
from posbench.training import checkpoints
from posbench.training.trainer import Start, Stopped, Trainer

# Called with (steps or cells done, of how many, what to show).
Tell = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Job:
    """Train `model` (no cells), or measure `cells`, all of one model and one extension; for an experiment.

    Attributes:
        seconds: what it should take, of a training or of each cell; empty where nobody has asked.
        until: when it must stop, in seconds of `time.time()`.
    """

    experiment: str
    model: ModelPlan
    cells: tuple[Cell, ...] = ()
    seconds: tuple[float, ...] = ()
    until: float = math.inf

    @property
    def label(self) -> str:
        """For people."""
        if not self.cells:
            return f"{'fine-tune' if self.model.tuning else 'train'} {self.model.label}"
        extension = self.cells[0].extension
        plain = self.model.tuning or extension == NONE
        return f"evaluate {self.model.label}" + ("" if plain else f" + {extension.name}")

    @property
    def name(self) -> str:
        """For dashboards: scheme[-extension]-length-seed."""
        one = self.model.settings
        parts = [one.scheme.name, *([self.extension.name] if self.extension else [])]
        return "-".join(
            [part for part in parts if part != "none"] + [str(one.train.length), str(one.train.seed)]
        )

    @property
    def extension(self) -> ExtensionSettings | None:
        """In place while it runs."""
        if self.cells:
            return self.cells[0].extension
        return self.model.tuning.extension if self.model.tuning else None

    @property
    def needs(self) -> set[str]:
        """The models that must be trained before."""
        if self.cells:
            return {self.model.id}
        return {self.model.tuning.parent.id} if self.model.tuning else set()


@dataclass(frozen=True)
class Places:
    """Where things lie under a results folder."""

    results: Path

    @classmethod
    def of(cls, runtime: RuntimeSettings) -> Places:
        """The places of a run."""
        return cls(Path(runtime.results))

    def model(self, model: ModelPlan) -> Path:
        """The folder of a model."""
        return self.results / "models" / model.id

    @property
    def store(self) -> Store:
        """All cells."""
        return Store(self.results / "cells")

    def prepare(self) -> None:
        """Make the folders, or say that they cannot be."""
        try:
            (self.results / "locks").mkdir(parents=True, exist_ok=True)
            (self.results / "locks" / f"{os.getpid()}.tmp").touch()
            (self.results / "locks" / f"{os.getpid()}.tmp").unlink()
        except OSError as error:
            raise ConfigError(
                f"results folder {self.results} cannot be written ({error.strerror}): give another runtime.results"
            ) from None

    def lock(self, job: Job) -> FileLock:
        """Held while a job runs; the system frees it when its process dies."""
        extension = job.cells[0].extension.name if job.cells else ""
        return FileLock(
            self.results / "locks" / f"{job.model.id}.{'train' if not job.cells else extension}.lock"
        )

    def done(self, cell: Cell, runtime: RuntimeSettings) -> bool:
        """Whether the rows of a cell are there; what another device had no memory for is tried again."""
        if not self.store.has(cell.id):
            return False
        sidecar = self.store.sidecar(cell.id)
        if sidecar.get("status") != "out_of_memory":
            return True
        return sidecar.get("device") == device_name(pick_device(runtime.device))

    def trained(self, model: ModelPlan) -> bool:
        """Whether the model is there, whole."""
        return model.pretrained is not None or checkpoints.facts(self.model(model) / "final") is not None


class Worker:
    """Runs jobs one after another in one process; keeps the last model and corpus at hand."""

    def __init__(self, runtime: RuntimeSettings) -> None:
        self.runtime = runtime
        self.places = Places.of(runtime)
        self.corpora: dict[str, Corpus] = {}
        self.last: Trained | None = None
        torch.set_num_threads(runtime.threads)
        logging.basicConfig(format="%(message)s", level=logging.WARNING)

    def run(self, job: Job, tell: Tell, stop: Callable[[], bool]) -> str:
        """Do what of a job is not done yet; "done", "busy" if another process has it, "unfinished" if time is up.

        Raises:
            Stopped: once `stop` says so, with nothing lost.
        """
        if not (lock := self.locked(job)):
            return "busy"
        try:
            if job.cells:
                self.evaluate(job, tell, stop)
            else:
                self.train(job, tell, lambda: stop() or time.time() > job.until)
        except Stopped:
            if world().any(stop()):
                raise
            return "unfinished"
        finally:
            lock.release()
        return "done"

    def locked(self, job: Job) -> BaseFileLock | None:
        """The lock of a job, held by rank 0 for all; None if another sweep has it."""
        lock = self.places.lock(job)
        held = True
        if world().leads:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                held = False
        return lock if world().agreed(held) else None

    def corpus(self, model: ModelPlan) -> Corpus:
        """The data of a model."""
        if model.corpus not in self.corpora:
            self.corpora[model.corpus] = open_corpus(model.settings.data, Path(self.runtime.cache))
        return self.corpora[model.corpus]

    def train(self, job: Job, tell: Tell, stop: Callable[[], bool]) -> None:
        """Train a model, unless it is there."""
        if self.places.trained(job.model):
            return
        model, steps = job.model, job.model.train.steps
        folder = self.places.model(model)
        with said_of(model):
            trainer = Trainer(model.settings, self.corpus(model), folder, self.runtime, self.start(model))
        with mirror(job, self.runtime) as run, said_of(model):

            def report(step: int, metrics: dict[str, float]) -> None:
                run.log_training(step, metrics)
                tell(step, steps, f"loss {metrics['loss']:.3f}")

            facts = trainer.run(report, stop)
            last = facts["curve"][-1] if facts["curve"] else {}
            run.summary({"status": facts["status"], "n_params": facts["n_params"], **last})
            run.log_checkpoint(folder / "final", f"{job.name}-{job.model.id}", {"model": job.model.id})

    def start(self, model: ModelPlan) -> Start | None:
        """Where the fine-tuning of a model starts, if it is fine-tuned."""
        if (tuning := model.tuning) is None:
            return None
        folder = self.places.model(tuning.parent)
        parent = Trained(tuning.parent, folder, self.corpus(tuning.parent), self.runtime)
        scheme = extended(parent.model.scheme, tuning.extension, model.settings, tuning.train.length)
        return Start(parent.model, scheme, tuning.train, parent.facts["step"], parent.facts["train_tokens"])

    def evaluate(self, job: Job, tell: Tell, stop: Callable[[], bool]) -> None:
        """Measure the cells that are not there."""
        todo = world().agreed([cell for cell in job.cells if not self.places.done(cell, self.runtime)])
        if not todo:
            return
        expected = dict(zip((cell.id for cell in job.cells), job.seconds, strict=False))
        pace = 1.0
        with mirror(job, self.runtime) as run:
            for index, cell in enumerate(todo):
                late = time.time() + pace * expected.get(cell.id, 0.0) > job.until
                if world().any(stop() or late):
                    raise Stopped
                began = time.monotonic()
                if self.last is None or self.last.plan.id != job.model.id:
                    folder = self.places.model(job.model)
                    self.last = opened(job.model, folder, self.corpus(job.model), self.runtime)
                self.last.evaluate(cell, self.places.store)
                if expected.get(cell.id):
                    pace = max(1.0, (time.monotonic() - began) / expected[cell.id])
                if world().leads:
                    run.log_evaluation(cell.length, means(self.places.store.read(cell.id)))
                tell(index + 1, len(todo), f"{cell.task.name} at {cell.length}")


def mirror(job: Job, runtime: RuntimeSettings) -> Mirror:
    """The job's run on W&B."""
    settings = asdict(job.model.settings)
    if job.extension:
        settings["extension"] = asdict(job.extension)
    return open_mirror(
        WandbSettings(runtime.wandb, runtime.wandb_project),
        job_type="evaluate" if job.cells else "train",
        name=job.name,
        group=job.experiment,
        config={**settings, "model": job.model.id},
        folder=Path(runtime.results) / "wandb",
    )


def means(rows: pd.DataFrame) -> dict[str, float]:
    """Each metric of a cell per thing that it counts, named protocol/metric."""
    sums = rows[rows["status"] == "ok"].groupby(["protocol", "metric"])[["value", "n"]].sum()
    return {f"{protocol}/{metric}": value / n for (protocol, metric), value, n in sums.itertuples()}
