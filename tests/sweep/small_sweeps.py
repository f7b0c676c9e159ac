"""Plans of models and cells without settings of interest, and jobs that are done by making their files."""

from dataclasses import replace

from posbench import checksums
from posbench.config.schema import ExtensionSettings, ModelSettings, TaskSettings, TrainSettings
from posbench.evaluation.results_folder import ResultsFolder
from posbench.plan.cell import Cell, FineTuning, ModelPlan
from posbench.plan.job import Job

TASK = TaskSettings(
    "fixed_targets", {"_target_": "posbench.tasks.fixed_targets.FixedTargets", "num_examples": 4}
)
SCHEME = {"_target_": "posbench.schemes.nope.NoPE"}


def model(seed: int = 0, **train: object) -> ModelPlan:
    """A model that is told apart by its seed and settings of its training."""
    settings = ModelSettings(train=TrainSettings(seed=seed, **train))
    settings.scheme.name, settings.scheme.build = "nope", SCHEME
    return ModelPlan(settings, "corpus", 1)


def tuned(base: ModelPlan) -> ModelPlan:
    """The fine-tuning of a model."""
    extension = ExtensionSettings("longer", None, {"steps": 2})
    return replace(base, fine_tuning=FineTuning(base, extension, 1, TrainSettings(steps=2)))


def cell(model: ModelPlan, length: int = 64, extension: str = "none") -> Cell:
    """A cell of a model."""
    return Cell(model, ExtensionSettings(extension), 1, TASK, 1, length, 0, "float32")


def finish(results: ResultsFolder, job: Job, loss: float = 1.0) -> None:
    """Makes the files of a job that is done."""
    for one in job.cells:
        (results.path / "cells").mkdir(exist_ok=True)
        (results.path / "cells" / f"{one}.parquet").touch()
    if not job.cells:
        final = results.model_dir(job.model) / "final"
        final.mkdir(parents=True)
        metadata = {"status": "ok", "log_history": [{"validation_loss": loss}]}
        (final / "metadata.json").write_bytes(checksums.dump_json(metadata))
