"""A whole experiment: plan, train, evaluate, collect; what is done already is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import pandas as pd
import torch

from posbench import gate, launchers
from posbench.board import board
from posbench.build import build
from posbench.data.corpus import Corpus, open_corpus
from posbench.errors import PosbenchError
from posbench.identity import identity
from posbench.plan import Cell, ModelPlan, Plan
from posbench.settings import RuntimeSettings
from posbench.train import Trainer
from posbench.work import Job, Places


def pending(plan: Plan, places: Places, runtime: RuntimeSettings, experiment: str) -> list[Job]:
    """What is left to do: trainings, and the cells of each model and extension together."""
    wanted = {cell.model.id for cell in plan.cells if not places.done(cell, runtime)}
    # A model whose cells are all there is not needed, but one that nobody evaluates was asked for itself.
    wanted |= {model.id for model in plan.models} - {cell.model.id for cell in plan.cells}
    missing = [model for model in plan.every_model if not places.trained(model)]
    wanted |= {model.tuning.parent.id for model in missing if model.tuning and model.id in wanted}
    jobs = [Job(experiment, model) for model in missing if model.id in wanted]
    for _, cells in groupby(plan.cells, key=lambda cell: (cell.model.id, cell.extension.name)):
        todo = tuple(cell for cell in cells if not places.done(cell, runtime))
        if todo:
            jobs.append(Job(experiment, todo[0].model, todo))
    return jobs


def run(plan: Plan, runtime: RuntimeSettings, experiment: str, say: Callable[[str], None] = print) -> int:
    """Do what is left of a plan, the number of jobs; `experiment` groups their runs on a dashboard.

    Raises:
        PosbenchError: once all that could be done is done, if some jobs failed.
    """
    places = Places.of(runtime)
    places.prepare()
    launchers.check(runtime)
    for line in plan.dropped:
        say(f"left out: {line}")
    jobs = pending(plan, places, runtime, experiment)
    trainings = sum(not job.cells for job in jobs)
    cells = sum(len(job.cells) for job in jobs)
    say(
        f"{len(plan.every_model)} models, {trainings} to train; {len(plan.cells)} cells, {cells} to measure"
        + (f"; about {estimate(jobs, runtime)}" if jobs else "")
    )
    if not jobs:
        return 0
    with board(len(jobs)) as shown:
        failures = launchers.run(jobs, runtime, shown)
    if failures:
        raise PosbenchError(f"{len(failures)} jobs failed, the first: {failures[0]}; run again to retry them")
    return len(jobs)


def estimate(jobs: Sequence[Job], runtime: RuntimeSettings) -> str:
    """How long the jobs will take, from a step and a pass of the first model of each size, timed here."""
    torch.set_num_threads(runtime.threads)
    speeds: dict[str, tuple[float, float]] = {}
    reads: dict[str, int] = {}
    seconds = 0.0
    for job in jobs:
        settings, train = job.model.settings, job.model.train
        corpus = open_corpus(settings.data, Path(runtime.cache))
        kind = identity([asdict(settings.size), settings.train.length, settings.train.batch])
        if kind not in speeds:
            speeds[kind] = speed(job.model, corpus, runtime)
        step, token = speeds[kind]
        if not job.cells:
            whole = settings.train.batch * settings.train.length
            seconds += train.steps * step * train.batch * train.length / whole
        for cell in job.cells:
            # Making all prompts of a cell takes a while, and many cells have the same.
            prompts = identity(
                [cell.task.build, job.model.corpus, cell.length, cell.seed, settings.train.length]
            )
            if prompts not in reads:
                reads[prompts] = tokens(cell, corpus)
            seconds += reads[prompts] * token
    workers = len(launchers.places(runtime, len(jobs)))
    return f"{max(1, round(seconds / workers / 60))} minutes on {workers} worker{'s' if workers > 1 else ''}"


def speed(model: ModelPlan, corpus: Corpus, runtime: RuntimeSettings) -> tuple[float, float]:
    """Seconds a training step, and seconds a token of evaluation at the training length."""
    trainer = Trainer(model.settings, corpus, Path(runtime.results), runtime)
    trainer.step(0)
    started = time.perf_counter()
    trainer.step(1).item()
    step = time.perf_counter() - started
    started = time.perf_counter()
    with torch.no_grad():
        batch = trainer.held_out.at(0)
        trainer.loss(batch).item()
    return step, (time.perf_counter() - started) / batch.counted.size


def tokens(cell: Cell, corpus: Corpus) -> int:
    """Tokens that a cell reads."""
    task = build(cell.task.build)
    train_len = cell.model.settings.train.length
    return sum(
        len(prompt.context) + prompt.suffixes.size
        for prompt in task.prompts(cell.length, corpus, train_len, cell.seed)
    )


def collect(cells: Iterable[Cell], places: Places) -> pd.DataFrame:
    """The rows of cells in their order, under the labels of today's configs, those behind a closed gate marked."""
    frames = []
    for cell in cells:
        rows = places.store.read(cell.id)
        settings = cell.model.settings
        rows["scheme"], rows["extension"] = settings.scheme.name, cell.extension.name
        rows["size"], rows["corpus"] = settings.size.name, settings.data.name
        frames.append(rows)
    return gate.close(pd.concat(frames, ignore_index=True))
