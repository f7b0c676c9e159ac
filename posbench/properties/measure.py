"""Every property of a scheme, as one row of numbers and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posbench.properties import decay, linearity, relativity, uniqueness
from posbench.properties.bounds import bounds
from posbench.properties.determinism import determinism
from posbench.properties.hooks import acts_on
from posbench.properties.lengths import behaviour
from posbench.properties.order import felt
from posbench.properties.plane import plane
from posbench.properties.probe import Subject
from posbench.properties.turns import isometry

Row = dict[str, Any]

PROPERTIES: tuple[Callable[[Subject], Mapping[str, object]], ...] = (
    lambda subject: {"acts_on": ", ".join(acts_on(subject)) or "nothing"},
    lambda subject: {"order_felt": felt(subject)},
    determinism,
    uniqueness.told_apart,
    uniqueness.embedded,
    lambda subject: {"shift_change": relativity.shifted(subject)},
    lambda subject: {"diagonal_spread": relativity.along_diagonals(subject)},
    lambda subject: {"linear_embedding_missed": linearity.of_embeddings(subject)},
    lambda subject: {"linear_vector_missed": linearity.of_vectors(subject)},
    isometry,
    bounds,
    behaviour,
    plane,
)


@torch.no_grad()
def measure(name: str, settings: Mapping[str, Any]) -> tuple[Row, NDArray[np.float64]]:
    """The row of a scheme, and its (layers, N) curves of decay."""
    subject = Subject.of(settings)
    row: Row = {"scheme": name}
    for one in PROPERTIES:
        row |= one(subject)
    curves = decay.curves(subject)
    return row | decay.decay(curves), curves


def rounded(row: Row) -> Row:
    """Rounding errors are 0 and other numbers have four digits, so that any machine writes the same bytes."""

    def one(value: Any) -> Any:
        if not isinstance(value, float) or not np.isfinite(value):
            return value
        return 0.0 if abs(value) < 1e-9 else float(f"{value:.4g}")

    return {key: one(value) for key, value in row.items()}
