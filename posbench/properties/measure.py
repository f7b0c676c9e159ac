"""All properties of a scheme, as one row of numbers and strings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posbench.properties import decay, linearity, relativity, uniqueness
from posbench.properties.axial_2d import axial_2d
from posbench.properties.bounds import bounds
from posbench.properties.determinism import determinism
from posbench.properties.hooks import acts_on
from posbench.properties.length_behavior import length_behavior
from posbench.properties.order import order_sensitivity
from posbench.properties.probe import SchemeProbe, has_weights
from posbench.properties.qk_map import isometry

Row = dict[str, Any]

PROPERTIES: tuple[Callable[[SchemeProbe], Mapping[str, object]], ...] = (
    lambda probe: {"acts_on": ", ".join(acts_on(probe)) or "nothing"},
    lambda probe: {"has_weights": has_weights(probe)},
    lambda probe: {"order_sensitivity": order_sensitivity(probe)},
    determinism,
    uniqueness.position_separation,
    uniqueness.embedded,
    lambda probe: {"shift_change": relativity.shifted(probe)},
    lambda probe: {"diagonal_spread": relativity.along_diagonals(probe)},
    lambda probe: {"linear_embedding_missed": linearity.of_embeddings(probe)},
    lambda probe: {"linear_vector_missed": linearity.of_vectors(probe)},
    isometry,
    bounds,
    length_behavior,
    axial_2d,
)


@torch.no_grad()
def measure(name: str, settings: Mapping[str, Any]) -> tuple[Row, NDArray[np.float64]]:
    """Returns the row of a scheme and its (layers, N) curves of decay."""
    probe = SchemeProbe.of(settings)
    row: Row = {"scheme": name}
    for one in PROPERTIES:
        row |= one(probe)
    curves = decay.curves(probe)
    return row | decay.decay(curves), curves


def rounded(row: Row) -> Row:
    """Returns a row with four digits and without rounding errors, so that all machines write the same bytes."""

    def one(value: Any) -> Any:
        if not isinstance(value, float) or not np.isfinite(value):
            return value
        return 0.0 if abs(value) < 1e-9 else float(f"{value:.4g}")

    return {key: one(value) for key, value in row.items()}
