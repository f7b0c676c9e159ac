"""Long-range decay: the mean logit by distance if all queries and keys are the same constant vector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from posbench.properties.probe import EXACT, MULTIPLES, SchemeProbe, logits_or_weights, normalised

HEAD_DIM = 64  # rotations of few dimensions are not representative
FALL = 0.05  # relative to the logit without a scheme
KINDS = ("flat", "no", "envelope falls", "falls")  # from the least decay to the strongest


def curves(probe: SchemeProbe) -> NDArray[np.float64]:
    """(layers, N): mean over heads of the last token's logits at distances 0 .. N-1; NaN if masked.

    Logits are relative to the logit without a scheme; layers without logits have the weight relative to the weight of
    the token itself. N is 16 times the training length, or the longest multiple
    that the scheme supports.
    """
    wide = probe.with_shape(head_dim=HEAD_DIM, d_model=HEAD_DIM * probe.shape.n_heads)
    train_len = probe.shape.train_len
    length = wide.longest(*(multiple * train_len for multiple in MULTIPLES))
    x_BSW = torch.ones(1, length, wide.shape.d_model, dtype=torch.float64)
    last = slice(length - 1, length)
    reference = float(normalised(x_BSW[:, :1]).square().sum()) / probe.shape.n_heads / HEAD_DIM**0.5
    means = []
    for inputs in wide.attention_inputs(x_BSW, wide.geometry(length), projected=False):
        value_BHRS, are_logits = logits_or_weights(wide.scheme, inputs, last)
        logit_HS = value_BHRS[0, :, 0] / (reference if are_logits else 1)
        logit_HS = logit_HS.masked_fill(logit_HS.isnan(), torch.inf)  # NaN stands for masked keys
        means.append(torch.where(logit_HS > -torch.inf, logit_HS, torch.nan).mean(0).flip(0))
    return torch.stack(means).numpy()


def envelope(curve_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): the smallest non-increasing curve above a curve; at n, its largest value from n on."""
    filled = np.where(np.isnan(curve_N), -np.inf, curve_N)
    above = np.maximum.accumulate(filled[::-1])[::-1]
    return np.where(np.isinf(above), np.nan, above)


def distinct(curve_LN: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Returns the curves of the layers without duplicates."""
    kept: list[NDArray[np.float64]] = []
    for curve in curve_LN:
        if not any(np.allclose(curve, other, rtol=0, atol=EXACT, equal_nan=True) for other in kept):
            kept.append(curve)
    return kept


def decay(curve_LN: NDArray[np.float64]) -> dict[str, object]:
    """Returns the kind of decay of a scheme: of different layers, the one that decays least.

    falls: the curve never rises. envelope falls: it rises, but its envelope over the last quarter is lower than the
    first value by 5% of the logit without a scheme. flat: the curve is constant. no: none of these.
    """
    kinds = [_of_one(curve) for curve in distinct(curve_LN)]
    least = min(kinds, key=lambda one: KINDS.index(str(one["decay"])))
    return {"curves": len(kinds), **least}


def _of_one(curve: NDArray[np.float64]) -> dict[str, object]:
    visible = np.flatnonzero(~np.isnan(curve))
    curve = curve[visible]
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
        "first_rise": float(visible[rises[0] + 1]) if len(rises) else np.nan,
        "first_negative": float(visible[below[0]]) if len(below) else np.nan,
        "farthest": float(visible[-1]),
    }
