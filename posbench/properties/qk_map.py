"""Maps of queries and keys by position: whether they keep norms and are orthogonal."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from posbench.position.scheme import AttentionInputs
from posbench.properties.hooks import replaces_attention
from posbench.properties.probe import EXACT, SchemeProbe, draw

VECTORS = 16


def transformed_qk(probe: SchemeProbe, vector_VD: Tensor, length: int) -> Iterator[Tensor]:
    """(V, N, E) each: vectors transformed at the first positions, as queries and as keys, if positions matter."""
    for q, k, _ in _maps(probe, vector_VD, length):
        for side in (q, k):
            if not torch.allclose(side, side[:, :1].expand_as(side), rtol=0, atol=EXACT):
                yield side


def _maps(probe: SchemeProbe, vector_VD: Tensor, length: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yields queries, keys, and whether the scheme changes them, by layer and head."""
    length = length if probe.supports_length(length) else probe.shape.train_len
    shape, geo = probe.shape, probe.geometry(length)
    stream = draw(1, length, shape.d_model, seed=10).expand(len(vector_VD), -1, -1)
    x = vector_VD[:, None, None].expand(-1, shape.n_heads, length, -1).contiguous()
    for layer in range(shape.n_layers):
        inputs = AttentionInputs(layer, geo, stream, stream, x, x)
        if replaces_attention(probe.scheme, inputs):
            continue
        q, k = probe.scheme.qk(inputs)
        changed = q.shape != x.shape or not (torch.equal(q, x) and torch.equal(k, x))
        for head in range(shape.n_heads):
            yield q[:, head], k[:, head], changed


def isometry(probe: SchemeProbe) -> dict[str, float]:
    """Returns the largest relative change of a norm, and the largest entry of A^T A - I for the map A at a position.

    Both are NaN for schemes that do not change queries and keys; the second is inf if the map is not linear.
    """
    length = probe.shape.train_len
    vector_VD = draw(VECTORS, probe.shape.head_dim, seed=11)
    basis_DD = torch.eye(probe.shape.head_dim, dtype=torch.float64)
    sums = vector_VD[:-1] + vector_VD[1:]
    norm, orthogonal = math.nan, math.nan
    several = zip(
        _maps(probe, vector_VD, length),
        _maps(probe, basis_DD, length),
        _maps(probe, sums, length),
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
    other = math.inf if math.isnan(other) else other  # NaN stands for schemes that change neither
    return other if math.isnan(one) else max(one, other)
