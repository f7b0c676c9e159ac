"""A job of a sweep, by the ids of what it makes and needs; reading it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Job:
    """One training, or the cells of one model with one extension.

    Attributes:
        name: of its files: <model id>.train, or <model id>.<name of the extension>.
        label: a description for messages.
        model: id of the model that it trains or measures.
        cells: ids of the cells that it measures; none for a training.
        requires: ids of the models that must be trained before.
        rates: under grid.lr, the ids of the models of each rate; all are trained before the best one is selected.
        rate: index of its own rate among them; the job is needed only if this is the best one.
        tokens, flops: its cost.
        weight: operations of this job and of those that wait for it, by which jobs are ordered.
    """

    name: str
    label: str
    model: str
    cells: tuple[str, ...]
    requires: tuple[str, ...]
    rates: tuple[tuple[str, ...], ...]
    rate: int
    tokens: float
    flops: float
    weight: float

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The ids of all models that must be trained before, also those that compete with its own."""
        return (*self.requires, *(model for models in self.rates for model in models))

    @classmethod
    def from_document(cls, content: Mapping[str, Any]) -> Job:
        """Returns a job from plain values, as JSON has them."""
        return cls(
            **{
                **content,
                "cells": tuple(content["cells"]),
                "requires": tuple(content["requires"]),
                "rates": tuple(map(tuple, content["rates"])),
            }
        )
