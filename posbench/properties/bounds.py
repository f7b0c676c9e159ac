"""Boundedness: how much a scheme can add to a logit, and whether that grows with positions or with their number."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from posbench.properties.probe import EXACT, MULTIPLES, SchemeProbe, content_logits, last_token_logits
from posbench.properties.uniqueness import encoding

FAR = (2**10, 2**12, 2**14)  # tokens; paths that are integrated take their time to come so far
GROWTH = 1.1  # from each to the next, in some layer; a logarithm grows by 12/10 and 14/12


def bounds(probe: SchemeProbe) -> dict[str, object]:
    """The largest change of a logit to 16 times the training length (nats), and what it grows with.

    Growth with positions: few tokens, spread ever wider. With tokens: ever more of them within the training
    length. Both where one token stands everywhere.
    """
    train_len = probe.shape.train_len
    longest = probe.longest(*(multiple * train_len for multiple in MULTIPLES))
    position_NW = encoding(probe, longest)
    grows = []
    if _grows(_spread(probe)) or _grows(_entries(probe)):
        grows.append("positions")
    if _grows(_crowded(probe)):
        grows.append("tokens")
    return {
        "largest_change": float(_largest(probe, longest).max()),
        "largest_entry": math.nan if position_NW is None else float(position_NW.abs().max()),
        "grows_with": " and ".join(grows) or "nothing",
    }


def _grows(largest: list[Tensor]) -> bool:
    steps = [far > GROWTH * near + EXACT for near, far in pairwise(largest)]
    return bool(steps) and bool(torch.stack(steps).all(0).any())


def _spread(probe: SchemeProbe) -> list[Tensor]:
    """Few tokens, spread ever wider."""
    tokens = probe.longest(probe.shape.train_len, 4 * probe.shape.train_len)
    reaches = [reach for reach in FAR if probe.supports_length(reach)]
    if probe.moves_positions():  # positions end where the scheme says
        return []
    # An odd stride meets every phase of a rotation.
    return [_largest(probe, tokens, float(reach // tokens | 1)) for reach in reaches]


def _entries(probe: SchemeProbe) -> list[Tensor]:
    """What is added to embeddings, which is normalised before a logit could grow with it."""
    found = []
    for reach in FAR:
        tokens = probe.longest(probe.shape.train_len, 4 * probe.shape.train_len)
        if probe.moves_positions() or not probe.supports_length(reach):
            continue
        position_NW = encoding(probe, tokens, float(reach // tokens | 1))
        if position_NW is not None:
            found.append(position_NW.abs().amax()[None])
    return found


def _crowded(probe: SchemeProbe) -> list[Tensor]:
    """Ever more tokens within the training length."""
    found = []
    for multiple in MULTIPLES:
        length = multiple * probe.shape.train_len
        if probe.supports_length(length):
            found.append(_largest(probe, length, 1 if probe.moves_positions() else 1 / multiple))
    return found


def _largest(probe: SchemeProbe, length: int, position_scale: float = 1) -> Tensor:
    """(layers,) nats."""
    change = (last_token_logits(probe, length, position_scale) - content_logits(probe, length)).abs()
    return change.masked_fill(change.isinf(), 0).unflatten(0, (probe.shape.n_layers, -1)).flatten(1).amax(1)
