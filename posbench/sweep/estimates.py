"""Estimates the duration of jobs from one timed training step and one timed forward pass of each model size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from posbench.config.schema import RuntimeSettings, SizeSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.evaluation.oom_report import explain_oom
from posbench.identity import identity
from posbench.instantiate import by_name, instantiate
from posbench.plan.cell import Cell, ModelPlan
from posbench.runtime.device import pick_device
from posbench.sweep.jobs import Job, ResultsFolder
from posbench.tasks.task import Task
from posbench.training import resume
from posbench.training.trainer import Trainer


def with_estimates(jobs: Sequence[Job], runtime: RuntimeSettings) -> list[Job]:
    """Returns the jobs with their estimated seconds on one worker: of the training, or of each cell."""
    torch.set_num_threads(runtime.num_threads)
    speeds: dict[str, tuple[float, float]] = {}
    reads: dict[str, int] = {}
    results_folder, found = ResultsFolder.from_runtime(runtime), []
    # Evaluation alone may use a kernel that cannot train here.
    trains = any(not job.cells for job in jobs)
    for job in jobs:
        settings = job.model.settings
        corpus = open_corpus(settings.data, Path(runtime.cache_dir))
        kind = identity([asdict(settings.size), settings.train.seq_len, settings.train.batch_size])
        if kind not in speeds:
            speeds[kind] = time_step_and_token(job.model, corpus, runtime, trains)
        step, token = speeds[kind]
        if job.cells:
            seconds = tuple(token * tokens_read(cell, corpus, reads) for cell in job.cells)
        else:
            train, whole = job.model.train, settings.train.batch_size * settings.train.seq_len
            todo = train.steps - last_checkpoint_step(results_folder.model_dir(job.model))
            seconds = (todo * step * train.batch_size * train.seq_len / whole,)
        found.append(replace(job, estimated_seconds=seconds))
    return found


def tokens_read(cell: Cell, corpus: Corpus, known: dict[str, int]) -> int:
    """Returns the tokens that a cell reads, cached in `known` because many cells have the same prompts."""
    train_len = cell.model.settings.train.seq_len
    prompts = identity([by_name(cell.task.build), cell.model.corpus, cell.length, cell.seed, train_len])
    if prompts not in known:
        known[prompts] = count_tokens(cell, corpus)
    return known[prompts]


def last_checkpoint_step(folder: Path) -> int:
    """Returns the number of steps of the newest checkpoint of a training."""
    return max(
        (int(path.name.removeprefix("step-")) for path in resume.checkpoint_folders(folder)), default=0
    )


def time_step_and_token(
    model: ModelPlan, corpus: Corpus, runtime: RuntimeSettings, trains: bool
) -> tuple[float, float]:
    """Returns the seconds of a training step (0 if nothing is trained) and of a token of evaluation."""
    if model.pretrained:
        return 0.0, time_matmuls(model.settings.size, runtime)
    with explain_oom(model):
        trainer = Trainer(model.settings, corpus, None, runtime)
        step, batch = 0.0, trainer.held_out.get_batch(0)
        if trains:
            trainer.step(0)
            started = time.perf_counter()
            trainer.step(1).item()
            step = time.perf_counter() - started
    with torch.no_grad():
        if not trains or trainer.compiles:
            trainer.loss(trainer.collate(batch)).item()  # warm-up
        started = time.perf_counter()
        trainer.loss(trainer.collate(batch)).item()
    return step, (time.perf_counter() - started) / batch.loss_mask.size


def time_matmuls(size: SizeSettings, runtime: RuntimeSettings) -> float:
    """Returns the seconds of a token in the matrix products of a model that is not loaded, from one timed layer."""
    device = pick_device(runtime.device)
    x_TW = torch.randn(64, size.d_model, device=device)
    layer = torch.randn(size.d_model, (4 + 3 * size.mlp_ratio) * size.d_model, device=device)
    for _ in range(2):  # the first is a warm-up
        started = time.perf_counter()
        (x_TW @ layer).sum().item()
    return size.n_layers * (time.perf_counter() - started) / len(x_TW)


def count_tokens(cell: Cell, corpus: Corpus) -> int:
    """Returns the tokens that a cell reads."""
    task = instantiate(cell.task.build, Task)
    train_len = cell.model.settings.train.seq_len
    return sum(
        len(prompt.context) + prompt.continuations.size
        for prompt in task.prompts(cell.length, corpus, train_len, cell.seed)
    )


def format_duration(seconds: float) -> str:
    """Returns a duration as text, such as "3 minutes"."""
    whole = max(1, round(seconds / 60))
    return f"{whole} minute{'s' if whole > 1 else ''}" if whole < 120 else f"{seconds / 3600:.1f} hours"
