"""Relativity: whether the logit of a query at m and a key at n only depends on m - n."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from posbench.properties.probe import SchemeProbe, draw, logits

SHIFTS = (1, 7, 32)


def shifted(probe: SchemeProbe) -> float:
    """Returns the largest change of a logit (nats) if all positions are shifted by 1, 7 and 32; indices stay.

    Uses half of the training length, so that shifted positions are within the training length.
    """
    length = probe.shape.train_len // 2
    x_BSW = draw(2, length, probe.shape.d_model, seed=8)
    worst = math.nan
    before = _all(probe, x_BSW, 0)
    for shift in SHIFTS:
        changed = (_all(probe, x_BSW, shift) - before).abs()
        finite = changed[before.isfinite()]
        if finite.isfinite().all():  # within the scheme's table
            worst = max(float(finite.max()), 0.0 if math.isnan(worst) else worst)
    return worst


def _all(probe: SchemeProbe, x_BSW: Tensor, shift: int) -> Tensor:
    layers = probe.attention_inputs(x_BSW, probe.geometry(x_BSW.shape[1], shift=shift))
    return torch.stack([logits(probe.scheme, inputs) for inputs in layers])


def along_diagonals(probe: SchemeProbe) -> float:
    """Returns the largest difference (nats) between the logits of two pairs at the same distance, for equal tokens.

    Covers twice the training length, or the training length if the scheme supports no more; inf if only one pair is
    masked. It includes effects of indices, such as global tokens and factors that depend on the number of keys.
    """
    length = probe.longest(probe.shape.train_len, 2 * probe.shape.train_len)
    worst = 0.0
    for inputs in probe.attention_inputs(probe.repeated_tokens(2, length), probe.geometry(length)):
        logit_BHTS = logits(probe.scheme, inputs)
        for distance in range(length):
            diagonal = logit_BHTS.diagonal(-distance, -2, -1)
            visible = ~diagonal.isneginf()
            if not visible.any():
                continue
            spread = float((diagonal.amax(-1) - diagonal.amin(-1)).max()) if visible.all() else math.inf
            worst = float(np.maximum(worst, spread))  # keeps NaN
    return worst
