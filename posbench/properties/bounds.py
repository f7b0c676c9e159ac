"""Boundedness: the largest change of a logit by a scheme, and whether it grows with positions or tokens."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from posbench.properties.probe import EXACT, MULTIPLES, SchemeProbe, content_logits, last_token_logits
from posbench.properties.uniqueness import encoding

FAR = (2**10, 2**12, 2**14)  # largest positions (tokens); limited by the cost of floater's integration
# Only if logits grow over all of FAR. These positions are beyond the longest wavelength of a slow rotation, whose logits
# grow up to a fraction of it and then stop.
VERY_FAR = (2**18, 2**23, 2**28)
GROWTH = 1.1  # factor between successive positions in some layer; a logarithm grows by 12/10, ... and 28/23


def bounds(probe: SchemeProbe) -> dict[str, object]:
    """Returns the largest change of a logit by the scheme up to 16 times the training length, and what it grows with.

    Growth with positions is tested with few tokens at ever larger positions, growth with tokens with ever more tokens
    within the training length. All tokens are equal.
    """
    train_len = probe.shape.train_len
    longest = probe.longest(*(multiple * train_len for multiple in MULTIPLES))
    position_NW = encoding(probe, longest)
    grows = []
    if _grows(_wide(probe)) or _grows(_entries(probe)):
        grows.append("positions")
    if _grows(_dense(probe)):
        grows.append("tokens")
    return {
        "largest_change": float(_largest(probe, longest).max()),
        "largest_entry": math.nan if position_NW is None else float(position_NW.abs().max()),
        "grows_with": " and ".join(grows) or "nothing",
    }


def _grows(largest: list[Tensor]) -> bool:
    steps = [~(far <= GROWTH * near + EXACT) for near, far in pairwise(largest)]
    return bool(steps) and bool(torch.stack(steps).all(0).any())


def _wide(probe: SchemeProbe) -> list[Tensor]:
    """Largest changes for few tokens at ever larger positions."""
    tokens = probe.longest(probe.shape.train_len, 4 * probe.shape.train_len)
    if probe.moves_positions():  # positions are the scheme's own and bounded
        return []

    def largest(positions: tuple[int, ...]) -> list[Tensor]:
        # An odd stride reaches every phase of a rotation.
        supported = [position for position in positions if probe.supports_length(position)]
        return [_largest(probe, tokens, float(position // tokens | 1)) for position in supported]

    near = largest(FAR)
    return near + largest(VERY_FAR) if _grows(near) and encoding(probe, tokens) is None else near


def _entries(probe: SchemeProbe) -> list[Tensor]:
    """Largest entries of the position embeddings, whose growth normalisation would hide from logits."""
    largest = []
    for position in FAR:
        tokens = probe.longest(probe.shape.train_len, 4 * probe.shape.train_len)
        if probe.moves_positions() or not probe.supports_length(position):
            continue
        position_NW = encoding(probe, tokens, float(position // tokens | 1))
        if position_NW is not None:
            largest.append(position_NW.abs().amax()[None])
    return largest


def _dense(probe: SchemeProbe) -> list[Tensor]:
    """Largest changes for ever more tokens within the training length."""
    largest = []
    for multiple in MULTIPLES:
        length = multiple * probe.shape.train_len
        if probe.supports_length(length):
            largest.append(_largest(probe, length, 1 if probe.moves_positions() else 1 / multiple))
    return largest


def _largest(probe: SchemeProbe, length: int, position_scale: float = 1) -> Tensor:
    """(layers,): largest change of a logit of the last token, in nats."""
    change = (last_token_logits(probe, length, position_scale) - content_logits(probe)).abs()
    return change.masked_fill(change.isinf(), 0).unflatten(0, (probe.shape.n_layers, -1)).flatten(1).amax(1)
