"""Linearity: whether one fixed matrix maps every position p to p + k."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from posbench.properties.probe import SchemeProbe, draw
from posbench.properties.qk_map import transformed_qk
from posbench.properties.uniqueness import encoding

STEPS = (1, 7, 64)
LENGTH = (
    256  # training length: eight times the dimensions of the matrix, which is fitted to half of the positions
)
VECTORS = 64


def of_embeddings(probe: SchemeProbe) -> float:
    """Returns the largest relative error over k of M_k in PE(p) M_k = PE(p + k), fitted at even p, tested at odd p."""
    longer = probe.with_shape(train_len=LENGTH)
    position_NW = encoding(longer, LENGTH)
    if position_NW is None:
        return math.nan
    return float(np.max([_error(position_NW[:-step], position_NW[step:]) for step in STEPS]))


def of_vectors(probe: SchemeProbe) -> float:
    """Returns the same error for queries and keys: M_k maps random vectors, transformed at p, to p + k."""
    length = probe.shape.train_len
    vector_VD = draw(VECTORS, probe.shape.head_dim, seed=9)
    errors = []
    for at_VND in transformed_qk(probe, vector_VD, length + max(STEPS[:2])):
        for step in STEPS[:2]:
            errors.append(_error(at_VND[:, :-step].flatten(0, 1), at_VND[:, step:].flatten(0, 1)))
    return float(np.max(errors)) if errors else math.nan


def _error(from_NW: Tensor, to_NW: Tensor) -> float:
    """Returns the root mean square error of a linear fit, relative to the standard deviation of its targets."""
    if not (from_NW.isfinite().all() and to_NW.isfinite().all()):
        return math.inf
    fitted = torch.linalg.lstsq(from_NW[::2], to_NW[::2], rcond=1e-13, driver="gelsd").solution
    predicted, target = from_NW[1::2] @ fitted, to_NW[1::2]
    error = (predicted - target).square().mean() / (target - target.mean(0)).square().mean()
    return float(error.sqrt())
