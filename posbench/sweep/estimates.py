"""How long the jobs of a sweep will take, from a step and a pass of the first model of each size, timed here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from posbench.config.schema import RuntimeSettings, SizeSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.identity import identity
from posbench.instantiate import build
from posbench.runtime.device import pick_device
from posbench.sweep.jobs import Job, Places
from posbench.sweep.oom_report import said_of
from posbench.sweep.plan import Cell, ModelPlan
from posbench.training import checkpoints
from posbench.training.trainer import Trainer


def estimated(jobs: Sequence[Job], runtime: RuntimeSettings) -> list[Job]:
    """The jobs with the seconds that each should take on one worker: of a training, or of every cell."""
    torch.set_num_threads(runtime.threads)
    speeds: dict[str, tuple[float, float]] = {}
    reads: dict[str, int] = {}
    places, found = Places.of(runtime), []
    # Evaluation alone may use a kernel that cannot train here.
    trains = any(not job.cells for job in jobs)
    for job in jobs:
        settings = job.model.settings
        corpus = open_corpus(settings.data, Path(runtime.cache))
        kind = identity([asdict(settings.size), settings.train.length, settings.train.batch])
        if kind not in speeds:
            speeds[kind] = speed(job.model, corpus, runtime, trains)
        step, token = speeds[kind]
        if job.cells:
            seconds = tuple(token * reading(cell, corpus, reads) for cell in job.cells)
        else:
            train, whole = job.model.train, settings.train.batch * settings.train.length
            todo = train.steps - steps_done(places.model(job.model))
            seconds = (todo * step * train.batch * train.length / whole,)
        found.append(replace(job, seconds=seconds))
    return found


def reading(cell: Cell, corpus: Corpus, known: dict[str, int]) -> int:
    """Tokens that a cell reads; making all prompts takes a while, and many cells have the same."""
    train_len = cell.model.settings.train.length
    prompts = identity([cell.task.build, cell.model.corpus, cell.length, cell.seed, train_len])
    if prompts not in known:
        known[prompts] = tokens(cell, corpus)
    return known[prompts]


def steps_done(folder: Path) -> int:
    """Steps up to the newest checkpoint of a training."""
    for path in checkpoints.newest(folder, "step-*"):
        return int(path.name.removeprefix("step-"))
    return 0


def speed(model: ModelPlan, corpus: Corpus, runtime: RuntimeSettings, trains: bool) -> tuple[float, float]:
    """Seconds a training step, where one is to come, and seconds a token of evaluation at the training length."""
    if model.pretrained:
        return 0.0, matrices(model.settings.size, runtime)
    with said_of(model):
        trainer = Trainer(model.settings, corpus, Path(runtime.results), runtime)
        step, batch = 0.0, trainer.held_out.at(0)
        if trains:
            trainer.step(0)
            started = time.perf_counter()
            trainer.step(1).item()
            step = time.perf_counter() - started
    with torch.no_grad():
        if not trains or trainer.compiles:
            trainer.loss(batch).item()  # the first one warms up
        started = time.perf_counter()
        trainer.loss(batch).item()
    return step, (time.perf_counter() - started) / batch.counted.size


def matrices(size: SizeSettings, runtime: RuntimeSettings) -> float:
    """Seconds a token in the matrices of a model that is not read for its estimate: one layer's, timed."""
    device = pick_device(runtime.device)
    x_TW = torch.randn(64, size.width, device=device)
    layer = torch.randn(size.width, (4 + 3 * size.mlp) * size.width, device=device)
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        (x_TW @ layer).sum().item()
    return size.layers * (time.perf_counter() - started) / len(x_TW)


def tokens(cell: Cell, corpus: Corpus) -> int:
    """Tokens that a cell reads."""
    task = build(cell.task.build)
    train_len = cell.model.settings.train.length
    return sum(
        len(prompt.context) + prompt.suffixes.size
        for prompt in task.prompts(cell.length, corpus, train_len, cell.seed)
    )


def minutes(seconds: float) -> str:
    """For people."""
    whole = max(1, round(seconds / 60))
    return f"{whole} minute{'s' if whole > 1 else ''}" if whole < 120 else f"{seconds / 3600:.1f} hours"
