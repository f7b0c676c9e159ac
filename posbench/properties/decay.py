"""Long-range decay: the mean logit by distance where queries and keys are one constant vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from posbench.properties.probe import EXACT, MULTIPLES, SchemeProbe, logits, normalised

HEAD_DIM = 64  # rotations of few dimensions say little
FALL = 0.05  # of the logit without a scheme
KINDS = ("falls", "envelope falls", "flat", "no")


def curves(probe: SchemeProbe) -> NDArray[np.float64]:
    """(layers, N): mean over heads of the last token's logits at distances 0 .. N-1, NaN where hidden.

    In parts of the logit without a scheme. To 16 times the training length, or as far as there is an answer.
    """
    wide = probe.with_shape(head_dim=HEAD_DIM, d_model=HEAD_DIM * probe.shape.n_heads)
    train_len = probe.shape.train_len
    length = wide.longest(*(multiple * train_len for multiple in MULTIPLES))
    x_BSW = torch.ones(1, length, wide.shape.d_model, dtype=torch.float64)
    last = slice(length - 1, length)
    alone = float(normalised(x_BSW[:, :1]).square().sum()) / probe.shape.n_heads / HEAD_DIM**0.5
    alone = alone if wide.scheme.traits.softmax_attention else 1.0
    found = []
    for inputs in wide.attention_inputs(x_BSW, wide.geometry(length), projected=False):
        said_HS = logits(wide.scheme, inputs, last)[0, :, 0] / alone
        found.append(torch.where(said_HS > -torch.inf, said_HS, torch.nan).mean(0).flip(0))
    return torch.stack(found).numpy()


def envelope(curve_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least curve that never rises and lies above: at n the largest value from n on."""
    filled = np.where(np.isnan(curve_N), -np.inf, curve_N)
    above = np.maximum.accumulate(filled[::-1])[::-1]
    return np.where(np.isinf(above), np.nan, above)


def distinct(curve_LN: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The curves of the layers, those that are alike once."""
    kept: list[NDArray[np.float64]] = []
    for curve in curve_LN:
        if not any(np.allclose(curve, other, rtol=0, atol=EXACT, equal_nan=True) for other in kept):
            kept.append(curve)
    return kept


def decay(curve_LN: NDArray[np.float64]) -> dict[str, object]:
    """What the curves of a scheme say: of layers that differ, the one that decays least.

    falls: it never rises. envelope falls: it rises, and its envelope over the last quarter lies under the first
    value by 5% of the logit without a scheme. flat: nothing changes. no: none of these.
    """
    found = [_of_one(curve) for curve in distinct(curve_LN)]
    order: Sequence[str] = ("flat", "no", "envelope falls", "falls")
    least = min(found, key=lambda one: order.index(str(one["decay"])))
    return {"curves": len(found), **least}


def _of_one(curve: NDArray[np.float64]) -> dict[str, object]:
    seen = np.flatnonzero(~np.isnan(curve))
    curve = curve[seen]
    above = envelope(curve)
    far = float(above[3 * len(curve) // 4])
    steps = np.diff(curve)
    if np.ptp(curve) < EXACT:
        kind = "flat"
    elif (steps <= EXACT).all():
        kind = "falls"
    else:
        kind = "envelope falls" if far < curve[0] - FALL else "no"
    rises = np.flatnonzero(steps > EXACT)
    below = np.flatnonzero(curve < -EXACT)
    return {
        "decay": kind,
        "envelope_far": far,
        "least": float(curve.min()),
        "first_rise": float(seen[rises[0] + 1]) if len(rises) else np.nan,
        "first_negative": float(seen[below[0]]) if len(below) else np.nan,
        "farthest": float(seen[-1]),
    }
