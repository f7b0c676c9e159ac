"""A whole experiment: plan, train, evaluate, collect; what is done already is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from posbench.config.schema import RuntimeSettings
from posbench.errors import PosbenchError
from posbench.results import gate
from posbench.runtime.distributed import world
from posbench.sweep import launcher
from posbench.sweep.estimates import estimated, minutes
from posbench.sweep.jobs import Job, Places
from posbench.sweep.oom_report import shortages
from posbench.sweep.plan import Cell, Plan
from posbench.sweep.progress import board
from posbench.sweep.time_budget import Allowance


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


@dataclass(frozen=True)
class Outcome:
    """How many jobs a run did, and how many it had no time for."""

    done: int
    left: int = 0


def run(plan: Plan, runtime: RuntimeSettings, experiment: str, say: Callable[[str], None] = print) -> Outcome:
    """Do what is left of a plan; `experiment` groups its runs on a dashboard.

    Raises:
        PosbenchError: once all that could be done is done, if some jobs failed.
    """
    here = world()
    if not here.leads:
        say = lambda text: None  # noqa: E731
    allowance = Allowance(runtime.max_minutes)
    places = Places.of(runtime)
    places.prepare()
    launcher.check(runtime)
    for line in plan.dropped:
        say(f"left out: {line}")
    jobs = estimated(pending(plan, places, runtime, experiment), runtime)
    trainings = sum(not job.cells for job in jobs)
    cells = sum(len(job.cells) for job in jobs)
    workers = len(launcher.places(runtime, len(jobs)))
    about = f"about {minutes(seconds_of(jobs) / workers)} on {workers} worker{'s' if workers > 1 else ''}"
    say(
        f"{len(plan.every_model)} models, {trainings} to train; {len(plan.cells)} cells, {cells} to measure"
        + (f"; {about}" if jobs else "")
    )
    if not jobs:
        return Outcome(0)
    allowance.check(jobs)
    with board(len(jobs)) as shown:
        failures, left = here.agreed(launcher.run(jobs, runtime, shown, allowance))
    for line in shortages(plan.cells, places.store):
        say(line)
    if failures:
        raise PosbenchError(f"{len(failures)} jobs failed, the first: {failures[0]}; run again to retry them")
    if left:
        say(
            f"time is up: {len(left)} of {len(jobs)} jobs are left, about {minutes(seconds_of(left) / workers)} "
            f"on {workers} worker{'s' if workers > 1 else ''}; the same command continues"
        )
    return Outcome(len(jobs) - len(left), len(left))


def seconds_of(jobs: Iterable[Job]) -> float:
    """Of all jobs, one after another, as they were estimated."""
    return sum(sum(job.seconds) for job in jobs)


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
