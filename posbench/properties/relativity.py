"""Relativity: whether the logit of a query at m and a key at n depends on m - n alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posbench.properties.probe import SchemeProbe, draw, logits

SHIFTS = (1, 7, 32)


def shifted(probe: SchemeProbe) -> float:
    """The largest change of a logit (nats) when all positions move by 1, 7 and 32; tokens and indices stay.

    Half of the training length, so that what was moved is still within it.
    """
    length = probe.shape.train_len // 2
    x_BSW = draw(2, length, probe.shape.d_model, seed=8)
    worst = math.nan
    before = _all(probe, x_BSW, 0)
    for shift in SHIFTS:
        changed = (_all(probe, x_BSW, shift) - before).abs()
        finite = changed[before.isfinite()]
        if finite.isfinite().all():  # not moved past a table
            worst = max(float(finite.max()), 0.0 if math.isnan(worst) else worst)
    return worst


def _all(probe: SchemeProbe, x_BSW: Tensor, shift: int) -> Tensor:
    sites = probe.attention_inputs(x_BSW, probe.geometry(x_BSW.shape[1], shift=shift))
    return torch.stack([logits(probe.scheme, inputs) for inputs in sites])


def along_diagonals(probe: SchemeProbe) -> float:
    """The largest difference (nats) of two pairs at one distance where one token stands everywhere.

    To twice the training length, or to it where there is no answer beyond; inf where one of them is hidden.
    Beside positions it shows what follows from indices: global tokens, factors by the number of keys.
    """
    length = probe.longest(probe.shape.train_len, 2 * probe.shape.train_len)
    worst = 0.0
    for inputs in probe.attention_inputs(probe.repeated_tokens(2, length), probe.geometry(length)):
        said = logits(probe.scheme, inputs)
        for distance in range(length):
            diagonal = said.diagonal(-distance, -2, -1)
            seen = diagonal > -torch.inf
            if not seen.any():
                continue
            spread = float((diagonal.amax(-1) - diagonal.amin(-1)).max()) if seen.all() else math.inf
            worst = max(worst, spread)
    return worst
