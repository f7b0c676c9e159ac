"""A worker gives the memory of a model back before its next job, for the other workers of its GPU."""

import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_sweeps import cell, model, tuned

from posbench.config import hydra_app
from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.errors import ConfigError
from posbench.evaluation.evaluator import EvaluatedModel, device_name, processes_per_gpu
from posbench.evaluation.oom_report import explain_oom, oom_report_lines
from posbench.evaluation.results_folder import ResultsFolder
from posbench.lm.interface import Prompt
from posbench.model.gpt import GPT
from posbench.plan.cell import Plan
from posbench.plan.jobs import plan_jobs
from posbench.plan.plan import plan_model
from posbench.plan.sweep_file import Assignment, make_sweep, write_sweep
from posbench.sweep.run_job import JobRunner
from posbench.sweep.worker import run_worker

sys.path.append(str(Path(__file__).parents[1] / "report"))
from synthetic_rows import synthetic_rows


@pytest.mark.parametrize("scheme", ["rope", "t5"])
def test_no_model_stays_after_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Fault: the model evaluated last, and cycles of compiled code, kept their memory during the next training."""
    (tmp_path / "text").mkdir()
    for index in range(40):
        (tmp_path / "text" / f"{index}.txt").write_text(f"{index} for self in return if def\n" * 40)
    runtime = RuntimeSettings(
        device="cpu", tracker="none", results_dir=str(tmp_path / "results"), cache_dir=str(tmp_path / "cache")
    )
    settings = ModelSettings(
        SchemeSettings(scheme, hydra_app.load_group("scheme")[scheme]["build"]),
        SizeSettings("mini", n_layers=1, d_model=16, n_heads=2),
        DataSettings(source="files", path=str(tmp_path / "text")),
        TrainSettings(seq_len=8, steps=2, batch_size=2, val_batches=1, synthetic_fraction=0.0),
    )
    made: list[weakref.ref[GPT]] = []
    create = GPT.__init__

    def remember(model: GPT, *args: object, **settings: object) -> None:
        create(model, *args, **settings)  # type: ignore[arg-type]
        made.append(weakref.ref(model))

    monkeypatch.setattr(GPT, "__init__", remember)
    plan, emptied = Plan([plan_model(settings)], [], []), []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    (job,) = jobs = plan_jobs(plan)
    results_folder = ResultsFolder.from_runtime(runtime)
    results_folder.prepare()
    runner = JobRunner(make_sweep("test", plan, jobs, runtime), results_folder, runtime)
    assert runner.run(job, lambda *_: None, lambda: False) == 1
    assert made
    assert emptied
    assert not [one for one in made if one() is not None]
    assert runner.last is None


def test_only_lengths_that_were_measured_fitted() -> None:
    """Fault: "256 tokens fitted" of a cell that was undefined there, and had read nothing."""
    cells = [cell(model(), length) for length in (64, 128, 256)]
    statuses = dict(zip([one.id for one in cells], ("ok", "out_of_memory", "undefined"), strict=True))
    store = SimpleNamespace(run_metadata=lambda one: {"status": statuses[one]})
    (line,) = oom_report_lines(cells, store)  # type: ignore[arg-type]
    assert "64 tokens fitted" in line


def test_a_machine_with_more_memory_is_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: every CPU had one name, so that a cell that ran out of memory on one machine was never tried on another."""
    names = set()
    for gigabytes in (8, 64):
        sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gigabytes * 2**18}
        monkeypatch.setattr("os.sysconf", sizes.get)
        names.add(device_name(torch.device("cpu")))
    assert len(names) == 2


def test_workers_know_how_many_share_their_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: they recorded one process, since the sweep's file has no settings of its start."""
    results, seen = ResultsFolder(tmp_path), []
    results.prepare()
    plan = Plan([model()], [], [])
    sweep = make_sweep("test", plan, plan_jobs(plan), RuntimeSettings(device="cpu", workers_per_gpu=9))
    write_sweep(tmp_path, sweep)
    runner = SimpleNamespace(run=lambda *_: 1.0)
    monkeypatch.setattr(
        "posbench.sweep.worker.JobRunner", lambda sweep, folder, runtime: seen.append(runtime) or runner
    )
    assignment = Assignment(tmp_path, sweep.id, "run", frozenset(), processes_per_gpu=9)
    run_worker(assignment, lambda: True)
    assert [processes_per_gpu(runtime) for runtime in seen] == [9]


def test_memory_that_others_used_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a length that did not fit beside eight other models was never tried again by a process alone."""
    crowded = RuntimeSettings(device="cpu", workers_per_gpu=9, results_dir=str(tmp_path))
    results = ResultsFolder(tmp_path)
    run = {"status": "out_of_memory", "device": device_name(torch.device("cpu")), "processes_per_gpu": 9}
    rows = synthetic_rows(documents=1, contexts=1, schemes=["alibi"]).head(1).assign(cell_id="one")
    results.store.write("one", rows, run)
    assert results.is_evaluated("one", crowded, verify=False)
    assert not results.is_evaluated("one", replace(crowded, workers_per_gpu=1), verify=False)
    assert processes_per_gpu(replace(crowded, launcher="ray")) == 4
    # Fault: eight workers of one GPU by num_workers counted as one.
    eight = replace(crowded, device="auto", workers_per_gpu=1, num_workers=8)
    for gpus, expected in ((0, 1), (1, 8), (3, 3)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert processes_per_gpu(eight) == expected
    assert processes_per_gpu(replace(eight, device="cuda:1")) == 8


def test_the_advice_for_a_fine_tuning_leaves_its_base_model() -> None:
    """Fault: "give train.grad_accum_steps", which trains every base model of the sweep again."""
    one = tuned(model())
    words = r"give finetune\.longer\.train\.grad_accum_steps=2 or a smaller finetune"
    with pytest.raises(ConfigError, match=words), explain_oom(one):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("continuations", [1, 3])
def test_batches_of_short_passes_get_smaller_than_a_sequence(continuations: int) -> None:
    """Fault: out of memory was recorded while the continuations of a context could still be read one at a time."""
    evaluated = object.__new__(EvaluatedModel)
    evaluated.plan, evaluated.corpus = (
        SimpleNamespace(settings=SimpleNamespace(train=SimpleNamespace(seq_len=8))),
        None,
    )  # type: ignore[assignment]
    evaluated.max_tokens_per_batch, evaluated.should_stop = 400, lambda: False
    prompt = Prompt(np.arange(90), np.zeros((continuations, 10), int), n_scored=1)
    tried: list[int] = []

    def lm(cell: object, kernel: object, max_tokens: int) -> object:
        def loglikelihood(prompts: list[Prompt]) -> list[None]:
            tried.append(max_tokens)
            if max_tokens > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return [None] * len(prompts)

        return SimpleNamespace(loglikelihood=loglikelihood)

    evaluated.lm = lm  # type: ignore[method-assign]
    task: Any = SimpleNamespace(
        prompts=lambda *_: [prompt],
        output_type="loglikelihood",
        process_all_results=lambda results: results and [],
    )
    one = cell(model(), 99)
    if continuations == 1:
        with pytest.raises(torch.OutOfMemoryError):
            evaluated.run_task(one, task, None)  # type: ignore[arg-type]
        assert tried == [400, 200, 100]
    else:
        assert evaluated.run_task(one, task, None) == []  # type: ignore[arg-type]
        assert tried == [400, 200, 100, 1]
    assert evaluated.max_tokens_per_batch == 100
