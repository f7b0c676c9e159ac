"""Attention biases as functions of the indices of a pair, from which FlexAttention builds a `score_mod`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.kernels.flex_options import materialize, padded_length
from posbench.position.biases import (
    AttentionBias,
    CompositeBias,
    DistanceBias,
    KeyContentBias,
    QueryContentBias,
    SeparableBias,
)
from posbench.position.geometry import Geometry

# The gradient of a table is computed by atomic additions, one for each pair. On an H200 (12 heads, 32 x 1024 tokens)
# they take 36 ms if all go to one table, 4 ms with a copy of the table for each sequence, and 1 ms with a copy for each
# sequence and block of keys, 16 blocks of 64. (Attention with a fixed table takes 2.5 ms, forward and backward.)
COPIES, COPY_BLOCK = 16, 64

# Integer indices (b, h, i, j) into the padded call -> bias in nats.
IndexedBias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
# Indices (i, j) into the padded call -> integer distance >= 0.
Distance = Callable[[Tensor, Tensor], Tensor]


def bias_parts(bias: AttentionBias | None) -> tuple[AttentionBias, ...]:
    """Returns the summands of a bias."""
    return () if bias is None else bias.parts if isinstance(bias, CompositeBias) else (bias,)


def is_written_out(bias: AttentionBias, geo: Geometry) -> bool:
    """Whether the bias is computed for all pairs: tables and indexed content need integer distances."""
    if isinstance(bias, SeparableBias):
        return False
    indexed = isinstance(bias, DistanceBias | QueryContentBias | KeyContentBias)
    return not indexed or (geo.position_offset is None and geo.q_pos_T.is_floating_point())


def build_score_mod(
    bias: AttentionBias, geo: Geometry, batch: int, padded_queries: int, padded_keys: int
) -> Callable[..., Tensor]:
    """Returns a `score_mod` that adds the bias to the logits of the padded call of `batch` sequences."""
    added = bias_of_indices(bias, geo, batch, padded_queries, padded_keys)
    return lambda score, b, h, i, j: score + added(b, h, i, j)


def bias_of_indices(
    bias: AttentionBias, geo: Geometry, batch: int, padded_queries: int, padded_keys: int
) -> IndexedBias:
    """Returns the bias as a function of the indices of the padded call."""
    if isinstance(bias, CompositeBias):
        return _sum_of(
            tuple(bias_of_indices(part, geo, batch, padded_queries, padded_keys) for part in bias.parts)
        )
    if isinstance(bias, SeparableBias):
        row_BHT, column_BHS = bias.row_BHT, bias.column_BHS
        if torch.float64 in (row_BHT.dtype, column_BHS.dtype):
            rows, columns = _rounded_and_rest(row_BHT), _rounded_and_rest(column_BHS)
        else:
            rows, columns = (row_BHT,), (column_BHS,)
        return _sum_of(
            tuple(
                _from_separable(
                    materialize(_padded(row, padded_queries)), materialize(_padded(column, padded_keys))
                )
                for row, column in zip(rows, columns, strict=True)
            )
        )
    if is_written_out(bias, geo):
        value = bias.value(geo, slice(None)).float()
        value = value[(None,) * (4 - value.dim())]
        value = value.expand(*value.shape[:2], len(geo.q_index_T), len(geo.k_index_S))
        padding = (0, padded_keys - value.shape[3], 0, padded_queries - value.shape[2])
        return _from_pairs(materialize(F.pad(value, padding)), len(value) > 1, value.shape[1] > 1)
    distance, size = _distance(geo, padded_queries, padded_keys)
    if isinstance(bias, DistanceBias):
        make = partial(_padded_table, bias, size, geo.q_pos_T.device)
        # A table without parameters is cached: its constants are on the CPU, and the copy makes the GPU wait.
        table = make() if bias.cache_owner is None else geo.memo((bias.cache_owner, "flex table"), make)
        if torch.is_grad_enabled() and table.requires_grad:
            copies = table.expand(COPIES, batch, *table.shape).contiguous()
            return _from_copies(materialize(copies), distance)
        return _from_table(materialize(table), distance)
    assert isinstance(bias, QueryContentBias | KeyContentBias)
    index_N = materialize(
        bias.index(torch.arange(padded_length(size), device=geo.q_pos_T.device)).to(torch.int32)
    )
    if isinstance(bias, QueryContentBias):
        content = bias.content_BHTK.float()
        content = F.pad(content, (0, 0, 0, padded_queries - content.shape[2]))
        return _from_query_content(materialize(content), index_N, distance, len(content) > 1)
    content = bias.content_BHSK.float()
    content = F.pad(content, (0, 0, 0, padded_keys - content.shape[2]))
    return _from_key_content(materialize(content), index_N, distance, len(content) > 1)


def _padded_table(bias: DistanceBias, size: int, device: torch.device) -> Tensor:
    return _padded(bias.of(torch.arange(size, device=device)), padded_length(size))


def _padded(x: Tensor, length: int) -> Tensor:
    return F.pad(x.float(), (0, length - x.shape[-1]))


def _distance(geo: Geometry, padded_queries: int, padded_keys: int) -> tuple[Distance, int]:
    """Returns the distance as a function of the indices of the padded call, and the largest distance plus 1."""
    device = geo.q_pos_T.device
    if geo.position_offset is not None:
        offset = geo.memo("flex offset", lambda: torch.tensor(geo.position_offset, device=device))
        return partial(_toeplitz_distance, offset), geo.position_offset + len(geo.q_pos_T)
    # Memoized, so that the device synchronizes once per geometry, not once per call.
    size = geo.memo("flex table size", lambda: int((geo.q_pos_T.max() - geo.k_pos_S.min()).clamp(min=0)) + 1)
    q_pos, k_pos = geo.memo(
        ("flex positions", padded_queries, padded_keys),
        lambda: (
            F.pad(geo.q_pos_T, (0, padded_queries - len(geo.q_pos_T))),
            F.pad(geo.k_pos_S, (0, padded_keys - len(geo.k_pos_S))),
        ),
    )
    return partial(_pair_distance, q_pos, k_pos, padded_length(size) - 1), size


def _toeplitz_distance(offset: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return (i + offset - j).clamp(min=0)


def _pair_distance(q_pos_T: Tensor, k_pos_S: Tensor, largest: int, i: Tensor, j: Tensor) -> Tensor:
    return (q_pos_T[i] - k_pos_S[j]).clamp(min=0, max=largest)


def _sum_of(parts: tuple[IndexedBias, ...]) -> IndexedBias:
    def bias(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        total = parts[0](b, h, i, j)
        for part in parts[1:]:
            total = total + part(b, h, i, j)
        return total

    return bias


def _from_table(table_HN: Tensor, distance: Distance) -> IndexedBias:
    largest = table_HN.shape[1] - 1
    return lambda b, h, i, j: table_HN[h, distance(i, j).clamp(max=largest)]


def _from_copies(table_CBHN: Tensor, distance: Distance) -> IndexedBias:
    largest = table_CBHN.shape[-1] - 1
    return lambda b, h, i, j: table_CBHN[(j // COPY_BLOCK) % COPIES, b, h, distance(i, j).clamp(max=largest)]


def _rounded_and_rest(x: Tensor) -> tuple[Tensor, ...]:
    """Returns two float32 tensors whose sum is `x`: its rounded value, and the rest, which has the gradient.

    Row and column may be cumulative sums, whose difference is small: of rounded sums of 32,768 tokens it is wrong by
    1e-3. The rounded values are subtracted without a further error unless their difference is as large as they are.
    """
    rounded = x.detach().float()
    return rounded, (x - rounded).float()


def _from_separable(row_BHT: Tensor, column_BHS: Tensor) -> IndexedBias:
    rows, columns = len(row_BHT) > 1, len(column_BHS) > 1
    return lambda b, h, i, j: (
        row_BHT[_broadcast_index(b, rows), h, i] + column_BHS[_broadcast_index(b, columns), h, j]
    )


def _broadcast_index(b: Tensor, many: bool) -> Tensor:
    """Returns the index, or 0 in a dimension of size 1; a Python 0 would be a constant that Inductor has to fold."""
    return b if many else b * 0


def _from_query_content(content_BHTK: Tensor, index_N: Tensor, distance: Distance, many: bool) -> IndexedBias:
    largest = len(index_N) - 1
    return lambda b, h, i, j: content_BHTK[
        _broadcast_index(b, many), h, i, index_N[distance(i, j).clamp(max=largest)]
    ]


def _from_key_content(content_BHSK: Tensor, index_N: Tensor, distance: Distance, many: bool) -> IndexedBias:
    largest = len(index_N) - 1
    return lambda b, h, i, j: content_BHSK[
        _broadcast_index(b, many), h, j, index_N[distance(i, j).clamp(max=largest)]
    ]


def _from_pairs(bias_BHTS: Tensor, many: bool, heads: bool) -> IndexedBias:
    return lambda b, h, i, j: bias_BHTS[_broadcast_index(b, many), _broadcast_index(h, heads), i, j]
