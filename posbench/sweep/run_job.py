"""Runs one job: trains a model, or measures the cells of one; what is there already is not computed again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from posbench.config.schema import RuntimeSettings
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
from posbench.runtime.device import free_memory
from posbench.runtime.distributed import world
from posbench.sweep.model_run import checkpoint_name, means, open_model_run
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
        """Returns the corpus of a model."""
        if model.corpus not in self.corpora:
            self.corpora[model.corpus] = open_corpus(model.settings.data, Path(self.runtime.cache_dir))
        return self.corpora[model.corpus]

    def train(self, job: Job, on_progress: ProgressCallback, should_stop: Callable[[], bool]) -> float:
        """Trains the model of a job, unless it is complete."""
        if world().from_main(lambda: self.results_folder.is_trained(job.model)):
            return 0.0
        model = self.sweep.model(job.model)
        steps, folder = model.train.steps, self.results_folder.model_dir(model.id)
        if world().is_main_process:
            remove_leftovers(folder, locked=True)
        with explain_oom(model):
            trainer = Trainer(
                model.settings, self.corpus(model), folder, self.runtime, self.finetune_start(model)
            )
        begun = trainer.steps_done
        with open_model_run(model, self.sweep.name, self.runtime) as run, explain_oom(model):
            if model.fine_tuning:
                run.use_checkpoint(checkpoint_name(model.fine_tuning.base_model))

            def report(step: int, metrics: dict[str, float]) -> None:
                run.log_training(step, metrics)
                on_progress(step, steps, f"loss {metrics['loss']:.3f}{format_speed(metrics)}")

            metadata = trainer.run(report, should_stop)
            last = metadata["log_history"][-1] if metadata["log_history"] else {}
            numbers = {
                "status": metadata["status"],
                "n_params": metadata["n_params"],
                **last,
                **trainer.speed,
            }
            run.log_summary(numbers)
            if metadata["status"] == "diverged":
                run.alert("diverged", f"{model.label}: the loss is not finite after {metadata['step']} steps")
            run.log_checkpoint(folder / "final", checkpoint_name(model), numbers)
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
        todo = world().from_main(
            lambda: [cell for cell in job.cells if not self.results_folder.is_evaluated(cell, self.runtime)]
        )
        if not todo:
            return 0.0
        model = self.sweep.model(job.model)
        measured: list[tuple[int, dict[str, float]]] = []
        try:
            for index, cell in enumerate(map(self.sweep.cell, todo)):
                if world().any_rank(should_stop()):
                    raise TrainingInterrupted
                if self.last is None:
                    folder = self.results_folder.model_dir(model.id)
                    self.last = load_evaluated_model(model, folder, self.corpus(model), self.runtime)
                self.last.should_stop = self.is_interrupted
                self.last.evaluate(cell, self.results_folder.store)
                if world().is_main_process:
                    rows = self.results_folder.store.read(cell.id)
                    measured.append((cell.length, means(rows, cell.extension.name)))
                on_progress(index + 1, len(todo), f"{cell.task.name} at {cell.length}")
        finally:  # at once, because other workers may write to the run of the same model
            with open_model_run(model, self.sweep.name, self.runtime) as run:
                for length, metrics in measured:
                    run.log_evaluation(length, metrics)
        return len(todo) / len(job.cells)
