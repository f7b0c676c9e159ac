"""Runs one job: trains a model, or measures the cells of one; what is there already is not computed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from posbench.config.schema import RuntimeSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.errors import LengthError
from posbench.evaluation.evaluator import EvaluatedModel
from posbench.evaluation.oom_report import explain_oom
from posbench.evaluation.pretrained import load_evaluated_model
from posbench.evaluation.results_folder import ResultsFolder
from posbench.files import remove_leftovers
from posbench.plan.cell import ModelPlan
from posbench.plan.job import Job
from posbench.plan.sweep_file import Sweep
from posbench.plan.versions import check_model
from posbench.runtime.allocator import keep_freed_memory
from posbench.runtime.device import free_memory
from posbench.runtime.distributed import world
from posbench.tracking.report import cell_means, checkpoint_name
from posbench.tracking.run import RunInfo
from posbench.tracking.tracker import TrackedRun, open_run
from posbench.training.throughput import format_speed
from posbench.training.trainer import FinetuneStart, Trainer, TrainingInterrupted

# Called with the steps or cells that are done, their total, and a note to display.
ProgressCallback = Callable[[int, int, str], None]


class JobRunner:
    """Runs jobs of a sweep one after another in one process; keeps the corpora and the last model loaded.

    Attributes:
        is_interrupted: returns whether a signal has come, which ends a cell before it is measured.
    """

    def __init__(self, sweep: Sweep, results_folder: ResultsFolder, runtime: RuntimeSettings) -> None:
        self.sweep, self.results_folder, self.runtime = sweep, results_folder, runtime
        self.corpora: dict[str, Corpus] = {}
        self.last: EvaluatedModel | None = None
        self.is_interrupted: Callable[[], bool] = lambda: False
        torch.set_num_threads(runtime.num_threads)
        keep_freed_memory()

    def run(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> float:
        """Runs the part of a job that is not done yet, and returns its share of the job, from 0 to 1.

        Raises:
            TrainingInterrupted: when `should_stop` returns true, with all progress saved.
        """
        if not job.cells or (self.last and self.last.plan.id != job.model):
            self.last = None
        try:
            return (self.evaluate if job.cells else self.train)(job, on_progress, should_stop)
        finally:
            free_memory()

    def corpus(self, model: ModelPlan) -> Corpus:
        """Returns the corpus of a model.

        Raises:
            DataError: if the text or the code differs from that with which the sweep was planned.
        """
        if model.corpus not in self.corpora:
            self.corpora[model.corpus] = open_corpus(model.settings.data, Path(self.runtime.cache_dir))
        check_model(model, self.corpora[model.corpus])
        return self.corpora[model.corpus]

    def tracked_run(self, model: ModelPlan) -> TrackedRun:
        """Returns the one run on the tracker of a model's training and all its evaluations."""
        settings, tuning, train = asdict(model.settings), model.fine_tuning, model.settings.train
        if tuning:
            settings["extension"] = asdict(tuning.extension)
        names = [model.settings.scheme.name, *([tuning.extension.name] if tuning else [])]
        name = "-".join([*names, str(train.seq_len), str(train.seed)])
        folder, project = Path(self.runtime.results_dir), self.runtime.wandb_project
        return open_run(
            self.runtime, RunInfo(model.id, name, self.sweep.name, "model", folder, project, settings)
        )

    def train(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> float:
        """Trains the model of a job, unless it is complete."""
        if world().from_main(lambda: self.results_folder.is_trained(job.model)):
            return 0.0
        model = self.sweep.model(job.model)
        steps, folder = model.train.steps, self.results_folder.model_dir(model.id)
        if world().is_main_process:
            remove_leftovers(folder, locked=True)
        with self.tracked_run(model) as run, explain_oom(model):
            start = self.finetune_start(model)
            trainer = Trainer(model.settings, self.corpus(model), folder, self.runtime, start)
            begun = trainer.steps_done
            if model.fine_tuning:
                run.use_checkpoint(checkpoint_name(model.fine_tuning.base_model.id))

            def report(step: int, metrics: dict[str, float]) -> None:
                run.log_training(step, metrics)
                on_progress(step, steps, f"loss {metrics['loss']:.3f}{format_speed(metrics)}")

            metadata = trainer.run(report, should_stop)
            last = metadata["log_history"][-1] if metadata["log_history"] else {}
            numbers = {key: metadata[key] for key in ("status", "n_params")} | last | trainer.speed
            run.log_summary(numbers)
            if metadata["status"] == "diverged":
                run.alert("diverged", f"{model.label}: the loss is not finite after {metadata['step']} steps")
            run.log_checkpoint(folder / "final", checkpoint_name(model.id), numbers)
        return (steps - begun) / steps

    def finetune_start(self, model: ModelPlan) -> FinetuneStart | None:
        """Returns the start of the fine-tuning of a model, or None for a pretraining."""
        if (tuning := model.fine_tuning) is None:
            return None
        base, folder = tuning.base_model, self.results_folder.model_dir(tuning.base_model.id)
        return EvaluatedModel(base, folder, self.corpus(base), self.runtime).finetune_start(tuning)

    def evaluate(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> float:
        """Measures the cells of a job that have no rows yet.

        Raises:
            LengthError: of the first cell whose length is not possible, after all others are measured.
        """
        folder, store = self.results_folder, self.results_folder.store
        todo = world().from_main(
            lambda: [cell for cell in job.cells if not folder.is_evaluated(cell, self.runtime)]
        )
        if not todo:
            return 0.0
        model, measured = self.sweep.model(job.model), []
        total, begun = len(job.cells), len(job.cells) - len(todo)
        impossible: LengthError | None = None
        try:
            for done, cell in enumerate(map(self.sweep.cell, todo), begun + 1):
                if world().any_rank(should_stop()):
                    raise TrainingInterrupted
                if self.last is None:
                    weights = folder.model_dir(model.id)
                    self.last = load_evaluated_model(model, weights, self.corpus(model), self.runtime)
                self.last.should_stop = self.is_interrupted
                try:
                    self.last.evaluate(cell, store)
                except LengthError as error:  # of this cell alone
                    impossible = impossible or error
                    continue
                if world().is_main_process:
                    measured.append((cell.length, cell_means(store.read(cell.id), cell.extension.name)))
                on_progress(done, total, f"{cell.task.name} at {cell.length}")
        finally:  # at once, because other workers may write to the run of the same model
            with self.tracked_run(model) as run:
                for length, means in measured:
                    run.log_evaluation(length, means)
        if impossible:
            raise impossible
        return len(todo) / total
