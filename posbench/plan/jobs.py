"""The jobs of a plan, ordered by their work."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from posbench.plan.cell import Cell, ModelPlan, Plan
from posbench.plan.cost import Cost, evaluation_cost, expected_training_cost
from posbench.plan.grid import NONE
from posbench.plan.job import Job
from posbench.plan.lr_selection import base_of, rates_tried


def plan_jobs(plan: Plan, selects_rate: bool = False) -> list[Job]:
    """Returns all jobs of a plan, done or not; those with the most work come first.

    Args:
        selects_rate: whether models of all rates are trained and those of the best one are measured.
    """
    groups = [[[model.id for model in one] for one in tried] for tried in rates_tried(plan) if selects_rate]
    places = {
        model: (tuple(map(tuple, group)), index)
        for group in groups
        for index, models in enumerate(group)
        for model in models
    }
    found = [*_trainings(plan), *_evaluations(plan)]
    waiting: dict[str, float] = {}
    for model, cells, cost in found:
        for needed in _requires(model, cells):
            waiting[needed] = waiting.get(needed, 0.0) + cost.flops
    jobs = []
    for model, cells, cost in found:
        rates, rate = places.get(base_of(model).id, ((), 0))
        if not cells and not model.fine_tuning:  # all rates are trained
            rates, rate = (), 0
        weight = cost.flops + (0.0 if cells else waiting.get(model.id, 0.0))
        ids = tuple(cell.id for cell in cells)
        suffix = cells[0].extension.name if cells else "train"
        jobs.append(
            Job(
                f"{model.id}.{suffix}",
                label(model, cells),
                model.id,
                ids,
                _requires(model, cells),
                rates,
                rate,
                *cost,
                weight,
            )
        )
    return sorted(jobs, key=lambda job: -job.weight)


def _trainings(plan: Plan) -> Iterator[tuple[ModelPlan, tuple[Cell, ...], Cost]]:
    for model in plan.all_models:
        if not model.pretrained:
            yield model, (), expected_training_cost(model.settings, model.train)


def _evaluations(plan: Plan) -> Iterator[tuple[ModelPlan, tuple[Cell, ...], Cost]]:
    for _, group in groupby(plan.cells, key=lambda cell: (cell.model.id, cell.extension.name)):
        cells = tuple(group)
        costs = [evaluation_cost(cell.model.settings, cell.task.build, cell.length) for cell in cells]
        yield cells[0].model, cells, Cost(sum(one.tokens for one in costs), sum(one.flops for one in costs))


def _requires(model: ModelPlan, cells: tuple[Cell, ...]) -> tuple[str, ...]:
    if cells:
        return () if model.pretrained else (model.id,)
    return (model.fine_tuning.base_model.id,) if model.fine_tuning else ()


def label(model: ModelPlan, cells: tuple[Cell, ...]) -> str:
    """Returns a description of a job for messages."""
    if not cells:
        return f"{'fine-tune' if model.fine_tuning else 'train'} {model.label}"
    extension = cells[0].extension
    # The label of a fine-tuned model names its extension already.
    is_named = model.fine_tuning or extension == NONE
    return f"evaluate {model.label}" + ("" if is_named else f" + {extension.name}")
