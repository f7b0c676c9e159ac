"""Linear relation: whether one fixed matrix takes every position to the one k further on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posbench.properties.probe import SchemeProbe, draw
from posbench.properties.qk_map import transformed_qk
from posbench.properties.uniqueness import encoding

STEPS = (1, 7, 64)
LENGTH = 256  # trained positions: eight times the dimensions of the matrix that is fitted to half of them
VECTORS = 64


def of_embeddings(probe: SchemeProbe) -> float:
    """How much of PE(p + k) a matrix M_k misses: fitted at even p, tried at odd p, the worst k."""
    longer = probe.with_shape(train_len=LENGTH)
    position_NW = encoding(longer, LENGTH)
    if position_NW is None:
        return math.nan
    return max(_missed(position_NW[:-step], position_NW[step:]) for step in STEPS)


def of_vectors(probe: SchemeProbe) -> float:
    """The same of queries and keys: (a vector at p) M_k = (the vector at p + k), for random vectors at all p."""
    length = probe.shape.train_len
    vector_VD = draw(VECTORS, probe.shape.head_dim, seed=9)
    worst = math.nan
    for at_VND in transformed_qk(probe, vector_VD, length + max(STEPS[:2])):
        for step in STEPS[:2]:
            missed = _missed(at_VND[:, :-step].flatten(0, 1), at_VND[:, step:].flatten(0, 1))
            worst = max(missed, 0.0 if math.isnan(worst) else worst)
    return worst


def _missed(from_NW: Tensor, to_NW: Tensor) -> float:
    """Root mean square of what is missed, over that of what is to be reached less its mean."""
    fitted = torch.linalg.lstsq(from_NW[::2], to_NW[::2], rcond=1e-13, driver="gelsd").solution
    reached, wanted = from_NW[1::2] @ fitted, to_NW[1::2]
    missed = (reached - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean()
    return float(missed.sqrt())
