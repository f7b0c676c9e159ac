"""Jobs of a sweep, their folders, and the worker that runs them; several processes may run the same sweep."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from filelock import Timeout

from posbench.config.schema import ExtensionSettings, RuntimeSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.errors import ConfigError
from posbench.evaluation.evaluator import EvaluatedModel, device_name
from posbench.evaluation.oom_report import explain_oom
from posbench.evaluation.pretrained import load_evaluated_model
from posbench.files import Lock, remove_leftovers
from posbench.plan.cell import Cell, ModelPlan
from posbench.plan.grid import NONE
from posbench.plan.plan import apply_extension
from posbench.results.rows import RowStore
from posbench.runtime.device import pick_device
from posbench.runtime.distributed import world
from posbench.tracking.wandb import WandbLogger, WandbSettings, open_wandb_logger
from posbench.training import checkpoints
from posbench.training.trainer import FinetuneStart, Trainer, TrainingInterrupted

# Called with the steps or cells that are done, their total, and a note to display.
ProgressCallback = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Job:
    """One unit of work: the training of a model, or the measurement of cells.

    Attributes:
        experiment: the name of the experiment, which groups runs on W&B.
        cells: cells of `model` with one extension; none for a training.
        estimated_seconds: of the training or of each cell; empty if not estimated.
        deadline: time at which the job must stop, in seconds of `time.time()`.
    """

    experiment: str
    model: ModelPlan
    cells: tuple[Cell, ...] = ()
    estimated_seconds: tuple[float, ...] = ()
    deadline: float = math.inf

    @property
    def label(self) -> str:
        """A description for messages."""
        if not self.cells:
            return f"{'fine-tune' if self.model.fine_tuning else 'train'} {self.model.label}"
        extension = self.cells[0].extension
        # The label of a fine-tuned model names its extension already.
        is_named = self.model.fine_tuning or extension == NONE
        return f"evaluate {self.model.label}" + ("" if is_named else f" + {extension.name}")

    @property
    def name(self) -> str:
        """The name of its run on W&B: scheme[-extension]-length-seed."""
        train = self.model.settings.train
        parts = [self.model.settings.scheme.name, *([self.extension.name] if self.extension else [])]
        parts = [part for part in parts if part != "none"]
        return "-".join([*parts, str(train.seq_len), str(train.seed)])

    @property
    def extension(self) -> ExtensionSettings | None:
        """The extension of its cells or of its fine-tuning."""
        if self.cells:
            return self.cells[0].extension
        return self.model.fine_tuning.extension if self.model.fine_tuning else None

    @property
    def required_model_ids(self) -> set[str]:
        """The identities of the models that must be trained before."""
        if self.cells:
            return {self.model.id}
        return {self.model.fine_tuning.base_model.id} if self.model.fine_tuning else set()


@dataclass(frozen=True)
class ResultsFolder:
    """The layout of a results folder: models/, cells/ and locks/."""

    path: Path

    @classmethod
    def from_runtime(cls, runtime: RuntimeSettings) -> ResultsFolder:
        """Returns the results folder of a run."""
        return cls(Path(runtime.results_dir))

    def model_dir(self, model: ModelPlan) -> Path:
        """Returns the folder of a model."""
        return self.path / "models" / model.id

    @property
    def store(self) -> RowStore:
        """The rows of all cells."""
        return RowStore(self.path / "cells")

    def prepare(self) -> None:
        """Creates the folders and removes what killed processes have left; raises ConfigError if they are not writable."""
        try:
            (self.path / "locks").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path / "locks"):
                pass
        except OSError as error:
            raise ConfigError(
                f"results folder {self.path} cannot be written ({error.strerror}): give another runtime.results_dir"
            ) from None
        for folder in (self.path / "cells", *self.path.glob("models/*")):
            remove_leftovers(folder)

    def lock(self, job: Job) -> Lock:
        """Returns the lock to hold while a job runs; the operating system releases it when the process dies."""
        extension = job.cells[0].extension.name if job.cells else ""
        return Lock(self.path / "locks" / f"{job.model.id}.{'train' if not job.cells else extension}.lock")

    def is_evaluated(self, cell: Cell, runtime: RuntimeSettings) -> bool:
        """Returns whether a cell has rows; if another device was out of memory, it has to be measured again."""
        if not self.store.has(cell.id):
            return False
        run_metadata = self.store.run_metadata(cell.id)
        if run_metadata.get("status") != "out_of_memory":
            return True
        return run_metadata.get("device") == device_name(pick_device(runtime.device))

    def is_trained(self, model: ModelPlan) -> bool:
        """Returns whether a model is complete."""
        return (
            model.pretrained is not None
            or checkpoints.read_metadata(self.model_dir(model) / "final") is not None
        )


class Worker:
    """Runs jobs one after another in one process; keeps the corpora and the last model loaded."""

    def __init__(self, runtime: RuntimeSettings) -> None:
        self.runtime = runtime
        self.results_folder = ResultsFolder.from_runtime(runtime)
        self.corpora: dict[str, Corpus] = {}
        self.last: EvaluatedModel | None = None
        torch.set_num_threads(runtime.num_threads)
        logging.basicConfig(format="%(message)s", level=logging.WARNING)

    def run(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> str:
        """Runs the part of a job that is not done yet.

        Returns:
            "done", "busy" if another process has the job, or "out_of_time" if its deadline was reached.

        Raises:
            TrainingInterrupted: when `should_stop` returns true, with all progress saved.
        """
        if not (lock := self.acquire_lock(job)):
            return "busy"
        try:
            if job.cells:
                self.evaluate(job, on_progress, should_stop)
            else:
                self.train(job, on_progress, lambda: should_stop() or time.time() > job.deadline)
        except TrainingInterrupted:
            if world().any_rank(should_stop()):
                raise
            return "out_of_time"
        finally:
            lock.release()
        return "done"

    def acquire_lock(self, job: Job) -> Lock | None:
        """Acquires the lock of a job on rank 0; returns it on all ranks, or None if another sweep has it."""
        lock = self.results_folder.lock(job)
        held = True
        if world().is_main_process:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                held = False
        return lock if world().broadcast_object(held) else None

    def corpus(self, model: ModelPlan) -> Corpus:
        """Returns the corpus of a model."""
        if model.corpus not in self.corpora:
            self.corpora[model.corpus] = open_corpus(model.settings.data, Path(self.runtime.cache_dir))
        return self.corpora[model.corpus]

    def train(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> None:
        """Trains the model of a job, unless it is complete."""
        if self.results_folder.is_trained(job.model):
            return
        model, steps = job.model, job.model.train.steps
        folder = self.results_folder.model_dir(model)
        if world().is_main_process:
            remove_leftovers(folder, locked=True)
        with explain_oom(model):
            trainer = Trainer(
                model.settings, self.corpus(model), folder, self.runtime, self.finetune_start(model)
            )
        with open_job_logger(job, self.runtime) as run, explain_oom(model):

            def report(step: int, metrics: dict[str, float]) -> None:
                run.log_training(step, metrics)
                on_progress(step, steps, f"loss {metrics['loss']:.3f}")

            metadata = trainer.run(report, should_stop)
            last = metadata["log_history"][-1] if metadata["log_history"] else {}
            run.log_summary({"status": metadata["status"], "n_params": metadata["n_params"], **last})
            run.log_checkpoint(folder / "final", f"{job.name}-{job.model.id}", {"model": job.model.id})

    def finetune_start(self, model: ModelPlan) -> FinetuneStart | None:
        """Returns the start of the fine-tuning of a model, or None for a pretraining."""
        if (fine_tuning := model.fine_tuning) is None:
            return None
        folder = self.results_folder.model_dir(fine_tuning.base_model)
        base_model = EvaluatedModel(
            fine_tuning.base_model, folder, self.corpus(fine_tuning.base_model), self.runtime
        )
        trained = base_model.model
        scheme = apply_extension(
            trained.scheme, fine_tuning.extension, model.settings, fine_tuning.train.seq_len
        )
        return FinetuneStart(
            trained,
            trained.with_scheme(scheme),
            fine_tuning.train,
            base_model.metadata["step"],
            base_model.metadata["train_tokens"],
        )

    def evaluate(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> None:
        """Measures the cells of a job that have no rows yet."""
        todo = world().broadcast_object(
            [cell for cell in job.cells if not self.results_folder.is_evaluated(cell, self.runtime)]
        )
        if not todo:
            return
        expected = dict(zip((cell.id for cell in job.cells), job.estimated_seconds, strict=False))
        pace = 1.0  # measured over estimated seconds of the last cell, at least 1
        with open_job_logger(job, self.runtime) as run:
            for index, cell in enumerate(todo):
                is_late = time.time() + pace * expected.get(cell.id, 0.0) > job.deadline
                if world().any_rank(should_stop() or is_late):
                    raise TrainingInterrupted
                started = time.monotonic()
                if self.last is None or self.last.plan.id != job.model.id:
                    folder = self.results_folder.model_dir(job.model)
                    self.last = load_evaluated_model(job.model, folder, self.corpus(job.model), self.runtime)
                self.last.evaluate(cell, self.results_folder.store)
                if expected.get(cell.id):
                    pace = max(1.0, (time.monotonic() - started) / expected[cell.id])
                if world().is_main_process:
                    run.log_evaluation(cell.length, means(self.results_folder.store.read(cell.id)))
                on_progress(index + 1, len(todo), f"{cell.task.name} at {cell.length}")


def open_job_logger(job: Job, runtime: RuntimeSettings) -> WandbLogger:
    """Opens the W&B run of a job."""
    settings = asdict(job.model.settings)
    if job.extension:
        settings["extension"] = asdict(job.extension)
    return open_wandb_logger(
        WandbSettings(runtime.wandb_mode, runtime.wandb_project),
        job_type="evaluate" if job.cells else "train",
        name=job.name,
        group=job.experiment,
        config={**settings, "model": job.model.id},
        folder=Path(runtime.results_dir) / "wandb",
    )


def means(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the mean of each metric of a cell, by the name protocol/metric."""
    sums = rows[rows["status"] == "ok"].groupby(["protocol", "metric"])[["value_sum", "n"]].sum()
    return {f"{protocol}/{metric}": value / n for (protocol, metric), value, n in sums.itertuples()}
