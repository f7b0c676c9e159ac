"""Extension to two dimensions: half of the dimensions feel the row, half the column (an axial construction).

It is there where all that a scheme does is done to single vectors, embeddings or queries and keys, by their
position. A bias of distances, a mask or a count of keys has one axis by definition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posbench.position.geometry import Geometry
from posbench.position.scheme import Site
from posbench.properties.hooks import acts_on
from posbench.properties.probe import EXACT, Subject, draw, normalised

SIDE = 6
SHIFT = (1, 2)  # rows, columns
ON_VECTORS = {"embeddings", "positions", "q and k"}
NOWHERE = {"plane": False, "plane_smallest_difference": math.nan, "plane_shift": math.nan}


def plane(subject: Subject) -> dict[str, object]:
    """Whether the construction is there, the least difference between two places, and of logits under a shift.

    Where one token stands everywhere, over all layers and heads, in nats.
    """
    parts = set(acts_on(subject))
    if not parts & {"embeddings", "q and k"} or not parts <= ON_VECTORS:
        return dict(NOWHERE)
    shape = subject.shape
    half = subject.shaped(head_dim=shape.head_dim // 2, width=shape.width // 2)
    said = _logits(half, shape.width, (0, 0))
    apart = torch.cdist(said.flatten(0, -2).T, said.flatten(0, -2).T, p=math.inf)
    pairs = apart[torch.triu_indices(len(apart), len(apart), 1).unbind()]
    shifted = _logits(half, shape.width, SHIFT)
    return {
        "plane": bool(pairs.min() > EXACT),
        "plane_smallest_difference": float(pairs.min()),
        "plane_shift": float((said - shifted).abs().max()),
    }


def _logits(half: Subject, width: int, shift: tuple[int, int]) -> Tensor:
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
    for layer in range(half.shape.layers):
        parts = zip(x_BSW.chunk(2, -1), axes, strict=True)
        x_BSW = torch.cat([half.scheme.embed(part, geo, layer) for part, geo in parts], -1)
        h_BSW = normalised(x_BSW)
        q, k = (_heads(h_BSW @ draw(width, width, seed=seed) / width**0.5, half) for seed in (1, 2))
        sides = []
        for part, geo in enumerate(axes):
            # Half of every head; the stream's own halves are what the scheme may read.
            q_part, k_part = (side.chunk(2, -1)[part] for side in (q, k))
            stream = h_BSW.chunk(2, -1)[part]
            sides.append(half.scheme.qk(Site(layer, geo, stream, stream, q_part, k_part)))
        q, k = (torch.cat(both, -1) for both in zip(*sides, strict=True))
        found.append((q @ k.transpose(-1, -2))[0] / (2 * half.shape.head_dim) ** 0.5)
    return torch.stack(found)


def _heads(x_BSW: Tensor, half: Subject) -> Tensor:
    return x_BSW.unflatten(-1, (half.shape.heads, 2 * half.shape.head_dim)).transpose(1, 2)
