"""What a scheme makes of queries and keys by their position: norms, and whether it is an orthogonal map."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from posbench.position.scheme import Site
from posbench.properties.probe import EXACT, Subject, draw

VECTORS = 16


def turned(subject: Subject, vector_VD: Tensor, length: int) -> Iterator[Tensor]:
    """(V, N, E) each: vectors at the first positions, as queries and as keys of each layer that moves them."""
    for q, k, _ in _maps(subject, vector_VD, length):
        for side in (q, k):
            if not torch.allclose(side, side[:, :1].expand_as(side), rtol=0, atol=EXACT):
                yield side


def _maps(subject: Subject, vector_VD: Tensor, length: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """By layer and head: queries, keys, and whether anything was done to them."""
    length = length if subject.defined(length) else subject.shape.train_len
    shape, geo = subject.shape, subject.geometry(length)
    stream = draw(1, length, shape.width, seed=10).expand(len(vector_VD), -1, -1)
    x = vector_VD[:, None, None].expand(-1, shape.heads, length, -1).contiguous()
    for layer in range(shape.layers):
        site = Site(layer, geo, stream, stream, x, x)
        if not subject.scheme.traits.pairs:
            continue
        q, k = subject.scheme.qk(site)
        changed = q.shape != x.shape or not (torch.equal(q, x) and torch.equal(k, x))
        for head in range(shape.heads):
            yield q[:, head], k[:, head], changed


def isometry(subject: Subject) -> dict[str, float]:
    """The largest relative change of a norm, and the largest entry of A^T A - I, A the map at a position.

    NaN where queries and keys stay as they are; the second is inf where the map is not linear.
    """
    length = subject.shape.train_len
    vector_VD = draw(VECTORS, subject.shape.head_dim, seed=11)
    basis_DD = torch.eye(subject.shape.head_dim, dtype=torch.float64)
    sums = vector_VD[:-1] + vector_VD[1:]
    norm, orthogonal = math.nan, math.nan
    several = zip(
        _maps(subject, vector_VD, length),
        _maps(subject, basis_DD, length),
        _maps(subject, sums, length),
        strict=True,
    )
    for (q, k, changed), (q_basis, k_basis, _), (q_sum, k_sum, _) in several:
        if not changed:
            continue
        for of_vector, of_basis, of_sum in ((q, q_basis, q_sum), (k, k_basis, k_sum)):
            ratio = of_vector.norm(dim=-1) / vector_VD.norm(dim=-1)[:, None]
            norm = _larger(norm, float((ratio - 1).abs().max()))
            linear = torch.allclose(of_vector[:-1] + of_vector[1:], of_sum, rtol=0, atol=EXACT)
            map_NDE = of_basis.transpose(0, 1)
            product = map_NDE @ map_NDE.transpose(-1, -2) - basis_DD
            orthogonal = _larger(orthogonal, float(product.abs().max()) if linear else math.inf)
    return {"norm_change": norm, "orthogonality": orthogonal}


def _larger(one: float, other: float) -> float:
    return other if math.isnan(one) else max(one, other)
