"""Runs one job: trains a model, or measures the cells of one; what is there already is not computed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from posbench.config.schema import ExtensionSettings, RuntimeSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.evaluation.evaluator import EvaluatedModel
from posbench.evaluation.oom_report import explain_oom
from posbench.evaluation.pretrained import load_evaluated_model
from posbench.evaluation.results_folder import ResultsFolder
from posbench.files import remove_leftovers
from posbench.plan.cell import ModelPlan
from posbench.plan.job import Job
from posbench.plan.plan import apply_extension
from posbench.plan.sweep_file import Sweep
from posbench.runtime.distributed import world
from posbench.tracking.wandb import WandbLogger, WandbSettings, open_wandb_logger
from posbench.training.trainer import FinetuneStart, Trainer, TrainingInterrupted

# Called with the steps or cells that are done, their total, and a note to display.
ProgressCallback = Callable[[int, int, str], None]


class JobRunner:
    """Runs jobs of a sweep one after another in one process; keeps the corpora and the last model loaded."""

    def __init__(self, sweep: Sweep, results_folder: ResultsFolder, runtime: RuntimeSettings) -> None:
        self.sweep, self.results_folder, self.runtime = sweep, results_folder, runtime
        self.corpora: dict[str, Corpus] = {}
        self.last: EvaluatedModel | None = None
        torch.set_num_threads(runtime.num_threads)

    def run(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> float:
        """Runs the part of a job that is not done yet, and returns its share of the job, from 0 to 1.

        Raises:
            TrainingInterrupted: when `should_stop` returns true, with all progress saved.
        """
        return (self.evaluate if job.cells else self.train)(job, on_progress, should_stop)

    def corpus(self, model: ModelPlan) -> Corpus:
        """Returns the corpus of a model."""
        if model.corpus not in self.corpora:
            self.corpora[model.corpus] = open_corpus(model.settings.data, Path(self.runtime.cache_dir))
        return self.corpora[model.corpus]

    def train(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> float:
        """Trains the model of a job, unless it is complete."""
        if world().broadcast_object(self.results_folder.is_trained(job.model)):
            return 0.0
        self.last = None  # its memory is needed
        model = self.sweep.model(job.model)
        steps, folder = model.train.steps, self.results_folder.model_dir(model.id)
        if world().is_main_process:
            remove_leftovers(folder, locked=True)
        with explain_oom(model):
            trainer = Trainer(
                model.settings, self.corpus(model), folder, self.runtime, self.finetune_start(model)
            )
        begun = trainer.steps_done
        with open_job_logger(self.sweep, job, self.runtime) as run, explain_oom(model):

            def report(step: int, metrics: dict[str, float]) -> None:
                run.log_training(step, metrics)
                on_progress(step, steps, f"loss {metrics['loss']:.3f}")

            metadata = trainer.run(report, should_stop)
            last = metadata["log_history"][-1] if metadata["log_history"] else {}
            run.log_summary({"status": metadata["status"], "n_params": metadata["n_params"], **last})
            run.log_checkpoint(
                folder / "final", f"{run_name(self.sweep, job)}-{model.id}", {"model": model.id}
            )
        return (steps - begun) / steps

    def finetune_start(self, model: ModelPlan) -> FinetuneStart | None:
        """Returns the start of the fine-tuning of a model, or None for a pretraining."""
        if (fine_tuning := model.fine_tuning) is None:
            return None
        folder = self.results_folder.model_dir(fine_tuning.base_model.id)
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

    def evaluate(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> float:
        """Measures the cells of a job that have no rows yet."""
        todo = world().broadcast_object(
            [cell for cell in job.cells if not self.results_folder.is_evaluated(cell, self.runtime)]
        )
        if not todo:
            return 0.0
        model = self.sweep.model(job.model)
        with open_job_logger(self.sweep, job, self.runtime) as run:
            for index, cell in enumerate(map(self.sweep.cell, todo)):
                if world().any_rank(should_stop()):
                    raise TrainingInterrupted
                if self.last is None or self.last.plan.id != model.id:
                    self.last = None  # its memory is needed
                    folder = self.results_folder.model_dir(model.id)
                    self.last = load_evaluated_model(model, folder, self.corpus(model), self.runtime)
                self.last.evaluate(cell, self.results_folder.store)
                if world().is_main_process:
                    run.log_evaluation(cell.length, means(self.results_folder.store.read(cell.id)))
                on_progress(index + 1, len(todo), f"{cell.task.name} at {cell.length}")
        return len(todo) / len(job.cells)


def open_job_logger(sweep: Sweep, job: Job, runtime: RuntimeSettings) -> WandbLogger:
    """Opens the W&B run of a job."""
    model = sweep.model(job.model)
    extension = extension_of(sweep, job)
    settings = asdict(model.settings) | ({"extension": asdict(extension)} if extension else {})
    return open_wandb_logger(
        WandbSettings(runtime.wandb_mode, runtime.wandb_project),
        job_type="evaluate" if job.cells else "train",
        name=run_name(sweep, job),
        group=sweep.name,
        config={**settings, "model": model.id},
        folder=Path(runtime.results_dir) / "wandb",
    )


def extension_of(sweep: Sweep, job: Job) -> ExtensionSettings | None:
    """Returns the extension of the cells or of the fine-tuning of a job."""
    if job.cells:
        return sweep.cell(job.cells[0]).extension
    tuning = sweep.model(job.model).fine_tuning
    return tuning.extension if tuning else None


def run_name(sweep: Sweep, job: Job) -> str:
    """Returns the name of the run of a job on W&B: scheme[-extension]-length-seed."""
    settings, extension = sweep.model(job.model).settings, extension_of(sweep, job)
    parts = [settings.scheme.name, *([extension.name] if extension else [])]
    parts = [part for part in parts if part != "none"]
    return "-".join([*parts, str(settings.train.seq_len), str(settings.train.seed)])


def means(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the mean of each metric of a cell, by the name protocol/metric."""
    sums = rows[rows["status"] == "ok"].groupby(["protocol", "metric"])[["value_sum", "n"]].sum()
    return {f"{protocol}/{metric}": value / n for (protocol, metric), value, n in sums.itertuples()}
