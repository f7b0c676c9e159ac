"""Axial extension to two dimensions: half of the dimensions encode the row, half the column.

It exists for schemes that only act on single vectors (embeddings, or queries and keys) by their position. A bias of
distances, a mask or a number of keys has one axis by definition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs
from posbench.properties.hooks import acts_on
from posbench.properties.probe import EXACT, SchemeProbe, draw, normalised

SIDE = 6
SHIFT = (1, 2)  # rows, columns
ON_VECTORS = {"embeddings", "positions", "q and k"}
NOWHERE = {"axial_2d": False, "axial_2d_min_logit_difference": math.nan, "axial_2d_shift": math.nan}


def axial_2d(probe: SchemeProbe) -> dict[str, object]:
    """Returns whether the extension exists, and its smallest differences between positions and under a shift (nats).

    `axial_2d_min_logit_difference` is the smallest difference between the logits of two positions, largest over
    layers and heads; `axial_2d_shift` the largest change of a logit if all positions are shifted. All tokens are equal.
    """
    parts = set(acts_on(probe))
    if not parts & {"embeddings", "q and k"} or not parts <= ON_VECTORS:
        return dict(NOWHERE)
    shape = probe.shape
    half = probe.with_shape(head_dim=shape.head_dim // 2, d_model=shape.d_model // 2)
    logits = _logits(half, shape.d_model, (0, 0))
    columns_SP = logits.flatten(0, -2).T
    difference_SS = torch.cdist(columns_SP, columns_SP, p=math.inf)
    pairs = difference_SS[torch.triu_indices(len(difference_SS), len(difference_SS), 1).unbind()]
    shifted = _logits(half, shape.d_model, SHIFT)
    return {
        "axial_2d": bool(pairs.min() > EXACT),
        "axial_2d_min_logit_difference": float(pairs.min()),
        "axial_2d_shift": float((logits - shifted).abs().max()),
    }


def _logits(half: SchemeProbe, width: int, shift: tuple[int, int]) -> Tensor:
    """(layers, H, S, S): logits between all positions of a square."""
    row_S, column_S = (axis.flatten() for axis in torch.meshgrid(*2 * [torch.arange(SIDE)], indexing="ij"))
    line = half.geometry(2 * SIDE).k_pos_S  # positions that the scheme assigns along an axis
    index = torch.arange(SIDE * SIDE)
    axes = [
        Geometry(index, index, line[at + by], line[at + by], len(index), None)
        for at, by in zip((row_S, column_S), shift, strict=True)
    ]
    x_BSW = draw(1, 1, width, seed=12).expand(-1, len(index), -1)
    logits = []
    for layer in range(half.shape.n_layers):
        parts = zip(x_BSW.chunk(2, -1), axes, strict=True)
        x_BSW = torch.cat([half.scheme.embed(part, geo, layer) for part, geo in parts], -1)
        h_BSW = normalised(x_BSW)
        q, k = (_heads(h_BSW @ draw(width, width, seed=seed) / width**0.5, half) for seed in (1, 2))
        sides = []
        for part, geo in enumerate(axes):
            # Half of every head, with the same half of the residual stream as the scheme's input.
            q_part, k_part = (side.chunk(2, -1)[part] for side in (q, k))
            stream = h_BSW.chunk(2, -1)[part]
            sides.append(half.scheme.qk(AttentionInputs(layer, geo, stream, stream, q_part, k_part)))
        q, k = (torch.cat(both, -1) for both in zip(*sides, strict=True))
        logits.append((q @ k.transpose(-1, -2))[0] / (2 * half.shape.head_dim) ** 0.5)
    return torch.stack(logits)


def _heads(x_BSW: Tensor, half: SchemeProbe) -> Tensor:
    return x_BSW.unflatten(-1, (half.shape.n_heads, 2 * half.shape.head_dim)).transpose(1, 2)
