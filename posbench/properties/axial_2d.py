"""Extension to two dimensions: half of the dimensions feel the row, half the column (an axial construction).

It is there where all that a scheme does is done to single vectors, embeddings or queries and keys, by their
position. A bias of distances, a mask or a count of keys has one axis by definition.
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
    """Whether the construction is there, the least difference between two places, and of logits under a shift.

    Where one token stands everywhere, over all layers and heads, in nats.
    """
    parts = set(acts_on(probe))
    if not parts & {"embeddings", "q and k"} or not parts <= ON_VECTORS:
        return dict(NOWHERE)
    shape = probe.shape
    half = probe.with_shape(head_dim=shape.head_dim // 2, d_model=shape.d_model // 2)
    said = _logits(half, shape.d_model, (0, 0))
    apart = torch.cdist(said.flatten(0, -2).T, said.flatten(0, -2).T, p=math.inf)
    pairs = apart[torch.triu_indices(len(apart), len(apart), 1).unbind()]
    shifted = _logits(half, shape.d_model, SHIFT)
    return {
        "axial_2d": bool(pairs.min() > EXACT),
        "axial_2d_min_logit_difference": float(pairs.min()),
        "axial_2d_shift": float((said - shifted).abs().max()),
    }


def _logits(half: SchemeProbe, width: int, shift: tuple[int, int]) -> Tensor:
    """(layers, H, S, S) between all places of a square."""
    row_S, column_S = (axis.flatten() for axis in torch.meshgrid(*2 * [torch.arange(SIDE)], indexing="ij"))
    line = half.geometry(2 * SIDE).k_pos_S  # where the scheme feels the first places of an axis
    index = torch.arange(SIDE * SIDE)
    axes = [
        Geometry(index, index, line[at + by], line[at + by], len(index), None)
        for at, by in zip((row_S, column_S), shift, strict=True)
    ]
    x_BSW = draw(1, 1, width, seed=12).expand(-1, len(index), -1)
    found = []
    for layer in range(half.shape.n_layers):
        parts = zip(x_BSW.chunk(2, -1), axes, strict=True)
        x_BSW = torch.cat([half.scheme.embed(part, geo, layer) for part, geo in parts], -1)
        h_BSW = normalised(x_BSW)
        q, k = (_heads(h_BSW @ draw(width, width, seed=seed) / width**0.5, half) for seed in (1, 2))
        sides = []
        for part, geo in enumerate(axes):
            # Half of every head; the stream's own halves are what the scheme may read.
            q_part, k_part = (side.chunk(2, -1)[part] for side in (q, k))
            stream = h_BSW.chunk(2, -1)[part]
            sides.append(half.scheme.qk(AttentionInputs(layer, geo, stream, stream, q_part, k_part)))
        q, k = (torch.cat(both, -1) for both in zip(*sides, strict=True))
        found.append((q @ k.transpose(-1, -2))[0] / (2 * half.shape.head_dim) ** 0.5)
    return torch.stack(found)


def _heads(x_BSW: Tensor, half: SchemeProbe) -> Tensor:
    return x_BSW.unflatten(-1, (half.shape.n_heads, 2 * half.shape.head_dim)).transpose(1, 2)
