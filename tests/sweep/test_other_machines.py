"""A worker whose code or text differs from that with which its sweep was planned."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_sweeps import cell, model

from posbench.config.data import DataSettings
from posbench.config.schema import RuntimeSettings
from posbench.errors import DataError
from posbench.evaluation.results_folder import ResultsFolder
from posbench.instantiate import instantiate
from posbench.plan.cell import FineTuning, ModelPlan, Plan
from posbench.plan.jobs import plan_jobs
from posbench.plan.plan import plan_model
from posbench.plan.sweep_file import make_sweep
from posbench.plan.versions import check_cell
from posbench.sweep.run_job import JobRunner
from posbench.tasks.task import Task


@pytest.fixture
def planned(tmp_path: Path) -> ModelPlan:
    """A model that is planned on a folder of texts."""
    (tmp_path / "text").mkdir()
    for index in range(40):
        (tmp_path / "text" / f"{index}.txt").write_text(f"{index} for self in return if def\n" * 40)
    settings = model().settings
    settings.data = DataSettings(source="files", path=str(tmp_path / "text"))
    return plan_model(settings)


def runner(model: ModelPlan, folder: Path) -> JobRunner:
    runtime = RuntimeSettings(
        device="cpu", results_dir=str(folder / "results"), cache_dir=str(folder / "cache")
    )
    plan = Plan([model], [], [])
    return JobRunner(
        make_sweep("test", plan, plan_jobs(plan), runtime), ResultsFolder(folder / "results"), runtime
    )


def test_another_text(planned: ModelPlan, tmp_path: Path) -> None:
    """Fault: the worker trained on the text that it found, under the id of the text that was planned."""
    assert runner(planned, tmp_path).corpus(planned).fingerprint == planned.corpus
    (tmp_path / "text" / "0.txt").write_text("another text\n" * 90)
    with pytest.raises(DataError, match=rf"when the sweep was planned.*data\.fingerprint={planned.corpus}"):
        runner(planned, tmp_path).corpus(planned)


def test_another_version_of_a_scheme(planned: ModelPlan, tmp_path: Path) -> None:
    """Fault: the id has the version in the sweep's file, which nothing compared with that of the code."""
    with pytest.raises(DataError, match="scheme nope has version 1 here and had version 2"):
        runner(planned, tmp_path).corpus(replace(planned, version=2))


def test_other_versions_of_an_extension_and_a_task(planned: ModelPlan, tmp_path: Path) -> None:
    pi = replace(
        cell(planned).extension, name="pi", build={"_target_": "posbench.extensions.pi.PositionInterpolation"}
    )
    planned.settings.scheme.build = {"_target_": "posbench.schemes.rope.RoPE"}
    one = replace(cell(planned), extension=pi, extension_version=2, task_version=1)
    one = replace(one, task=replace(one.task, build={**one.task.build, "max_context": 128}))
    task = instantiate(one.task.build, Task)
    one = replace(one, task_version=task.version)
    with pytest.raises(DataError, match="extension pi has version 1 here and had version 2"):
        check_cell(one, task)
    check_cell(replace(one, extension_version=1), task)
    with pytest.raises(DataError, match="task fixed_targets has version"):
        check_cell(replace(one, extension_version=1, task_version=task.version + 1), task)
    tuned = FineTuning(planned, pi, 2, planned.settings.train)
    with pytest.raises(DataError, match="extension pi has version 1 here and had version 2"):
        runner(planned, tmp_path).corpus(replace(planned, fine_tuning=tuned))
