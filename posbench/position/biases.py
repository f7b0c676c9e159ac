"""Additive attention biases, by structure: schemes with the same structure share the kernels' fast paths.

`AttentionBias.value` defines a bias: it writes out the logits of a few query rows. Kernels that recognise a
subclass evaluate it without writing out every pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posbench.position.geometry import Geometry
from posbench.position.numerics import autocast_disabled, upcast

# Distances >= 0 in tokens, int64 or float64, of any shape -> int64 classes 0 .. K-1 of that shape.
Index = Callable[[Tensor], Tensor]


def floor_distance(distance: Tensor) -> Tensor:
    """Returns the integer part of distances, int64.

    Distances within 1e-6 below an integer count as that integer: i/k - j/k may fall short of it by rounding.
    """
    return torch.floor(distance + 1e-6).long() if distance.is_floating_point() else distance


@dataclass(frozen=True, eq=False)
class QueryRows:
    """Queries, keys and content logits of a few query rows, as `dense` holds them.

    Attributes:
        geo: the geometry, trimmed to the keys that the rows may see.
        rows: the R queries among those of `geo`.
        q_BHRE, k_BHSE: float32 or float64 queries and keys after `qk` and `logit_scale`, before `scale`.
        scale: factor on q . k.
        content_BHRS: scale * q . k.
        visible_RS: bool, True where the query may attend to the key.
    """

    geo: Geometry
    rows: slice
    q_BHRE: Tensor
    k_BHSE: Tensor
    scale: float
    content_BHRS: Tensor
    visible_RS: Tensor

    @property
    def keys_before_first_row(self) -> int | None:
        """Number of keys before the first row; each later row attends to one more. None if indices are not consecutive."""
        before = self.geo.index_offset
        return None if before is None else before + (self.rows.start or 0)


def _slot_distance(geo: Geometry, slot_TN: Tensor) -> Tensor:
    """Returns the (T, N) distances in tokens from the keys at `slot_TN` to the queries, clamped at 0."""
    return (geo.q_pos_T[:, None] - geo.k_pos_S[slot_TN]).clamp(min=0)


class AttentionBias:
    """A bias in nats, added to the scaled logits of the pairs of one region.

    Contract of every subclass:
        Shape: `value` broadcasts to (B, H, R, S), where R counts the queries in `rows` and S the keys of `geo`.
        Dtype: any floating dtype; kernels cast it to that of the logits.
        Keys: `geo` may hold only the first keys of the geometry that the bias was created for, as many as the
            rows may see. `DistanceBias` and `ElementwiseBias` take any subset of queries and keys.
        Masks: entries of pairs that causality or a mask hides are ignored. Distances passed to functions are
            clamped at 0.
        Dependence: parameters, positions, and what each class names. Only a bias with `needs_full_rows` may
            depend on the logits.
    """

    # Whether `value_from_rows` needs the logits of all heads and all visible keys of a row: only `dense` has them.
    needs_full_rows = False

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        """Returns the bias of the queries in `rows`, broadcastable to (B, H, R, S)."""
        raise NotImplementedError

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        """Returns the bias of each query and its N keys at int64 indices `slot_TN`, broadcastable to (B, H, T, N)."""
        bias = self.value(geo, slice(None))
        bias = bias[(None,) * (4 - bias.dim())]
        bias = bias.expand(*bias.shape[:2], len(geo.q_pos_T), len(geo.k_pos_S))
        return bias.gather(-1, slot_TN.expand(*bias.shape[:2], -1, -1))

    def precompute(self, k_BHSE: Tensor) -> AttentionBias:
        """Returns the bias with everything computed that depends on keys alone; called once per kernel call."""
        return self

    def value_from_rows(self, rows: QueryRows) -> Tensor:
        """Returns the same as `value`, given the content logits of the rows."""
        return self.value(rows.geo, rows.rows)


@dataclass(frozen=True, eq=False)
class DistanceBias(AttentionBias):
    """bias(h, i, j) = of(i - j)[h]: depends on head and distance alone.

    Attributes:
        of: distances >= 0 of any shape -> (H, *shape) nats, any floating dtype. It receives 0 .. N-1 where
            positions are consecutive, else the distances of the pairs.
        cache_owner: key under which results of `of` are kept on the geometry; None if `of` has parameters.
    """

    of: Callable[[Tensor], Tensor]
    cache_owner: Hashable | None = None

    def table(self, geo: Geometry) -> Tensor:
        """Returns (H, N): the bias at distances 0 .. N-1 for consecutive positions, N-1 the largest."""
        assert geo.position_offset is not None
        return self.of(torch.arange(geo.position_offset + len(geo.q_pos_T), device=geo.q_pos_T.device))

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        distance_RS = geo.distance(rows).clamp(min=0)
        return self.of(distance_RS) if geo.position_offset is None else self.table(geo)[:, distance_RS]

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        return self.of(_slot_distance(geo, slot_TN))


@dataclass(frozen=True, eq=False)
class SeparableBias(AttentionBias):
    """bias(h, i, j) = row(h, i) + column(h, j): may depend on the content of query and key, not of the pair.

    Attributes:
        row_BHT, column_BHS: (B or 1, H, T) and (B or 1, H, S) nats. The row cancels in the softmax; only the
            log-sum-exp contains it.
    """

    row_BHT: Tensor
    column_BHS: Tensor

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        return self.row_BHT[..., rows, None] + self.column_BHS[..., None, : len(geo.k_pos_S)]

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        return self.row_BHT[..., None] + self.column_BHS[..., slot_TN]


@dataclass(frozen=True, eq=False)
class QueryContentBias(AttentionBias):
    """bias(h, i, j) = content(h, i)[index(i - j)]: depends on the query's content and a class of the distance.

    Attributes:
        content_BHTK: (B or 1, H, T, K) nats, K the number of classes that `index` gives.
    """

    content_BHTK: Tensor
    index: Index

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        content_BHRK = self.content_BHTK[:, :, rows]
        index_RS = self.index(geo.distance(rows).clamp(min=0))
        return content_BHRK.gather(-1, index_RS.expand(*content_BHRK.shape[:2], *index_RS.shape))

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        index_TN = self.index(_slot_distance(geo, slot_TN))
        return self.content_BHTK.gather(-1, index_TN.expand(*self.content_BHTK.shape[:2], *index_TN.shape))


@dataclass(frozen=True, eq=False)
class KeyContentBias(AttentionBias):
    """bias(h, i, j) = content(h, j)[index(i - j)]: depends on the key's content and a class of the distance.

    Attributes:
        content_BHSK: (B or 1, H, S, K) nats, K the number of classes that `index` gives.
    """

    content_BHSK: Tensor
    index: Index

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        index_SR = self.index(geo.distance(rows).clamp(min=0)).transpose(0, 1)
        content_BHSK = self.content_BHSK[:, :, : len(geo.k_pos_S)]
        gathered = content_BHSK.gather(-1, index_SR.expand(*content_BHSK.shape[:2], *index_SR.shape))
        return gathered.transpose(-1, -2)

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        return self.content_BHSK[:, :, slot_TN, self.index(_slot_distance(geo, slot_TN))]


@dataclass(frozen=True, eq=False)
class ElementwiseBias(AttentionBias):
    """bias(h, i, j) = of(i, j): depends on the two positions alone, in closed form.

    Attributes:
        of: positions (R, 1) and (1, S), int64 or float64 -> broadcastable to (B, H, R, S) nats.
    """

    of: Callable[[Tensor, Tensor], Tensor]

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        return self.of(geo.q_pos_T[rows, None], geo.k_pos_S[None, :])


@dataclass(frozen=True, eq=False)
class RowwiseBias(AttentionBias):
    """A function of a query's logits over all keys that it attends to, in all heads.

    If the bias of a pair depends on other pairs of the row, the pairs cannot be split into regions: such a
    scheme is not `lse_mergeable`.

    Attributes:
        of: `QueryRows`, and what `prepare` returned if it is given -> broadcastable to (B, H, R, S) nats.
        q_BHTD, k_BHSD: queries and keys from which `value` computes content logits outside a kernel.
        prepare: keys (B, H, S, E) -> what `of` needs of all keys, once per kernel call.
        prepared: what `prepare` returned; set by `precompute`.
        is_logit: `of` returns the logit itself and must not read the content logits, which `dense` leaves empty.
    """

    of: Callable[..., Tensor]
    q_BHTD: Tensor
    k_BHSD: Tensor
    prepare: Callable[[Tensor], Any] | None = None
    prepared: tuple[Any, ...] = ()
    is_logit: bool = False

    needs_full_rows = True

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        q_BHRD, k_BHSD = upcast(self.q_BHTD[:, :, rows]), upcast(self.k_BHSD[:, :, : len(geo.k_pos_S)])
        scale = 1 / math.sqrt(q_BHRD.shape[-1])
        with autocast_disabled(q_BHRD):
            content_BHRS = scale * q_BHRD @ k_BHSD.transpose(-1, -2)
        seen = QueryRows(geo, rows, q_BHRD, k_BHSD, scale, content_BHRS, geo.visible((), rows))
        return self.precompute(k_BHSD).value_from_rows(seen)

    def precompute(self, k_BHSE: Tensor) -> AttentionBias:
        if self.prepare is None:
            return self
        with autocast_disabled(k_BHSE):
            return replace(self, prepared=(self.prepare(k_BHSE),))

    def value_from_rows(self, rows: QueryRows) -> Tensor:
        return self.from_rows(rows) - rows.content_BHRS if self.is_logit else self.from_rows(rows)

    def from_rows(self, rows: QueryRows) -> Tensor:
        with autocast_disabled(rows.q_BHRE):
            return self.of(rows, *self.prepared)


@dataclass(frozen=True, eq=False)
class CompositeBias(AttentionBias):
    """The sum of several biases; it depends on all that they depend on."""

    parts: tuple[AttentionBias, ...]

    @property
    def needs_full_rows(self) -> bool:  # type: ignore[override]
        return any(part.needs_full_rows for part in self.parts)

    def precompute(self, k_BHSE: Tensor) -> AttentionBias:
        return CompositeBias(tuple(part.precompute(k_BHSE) for part in self.parts))

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        return _sum([part.value(geo, rows) for part in self.parts])

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        return _sum([part.gather(geo, slot_TN) for part in self.parts])

    def value_from_rows(self, rows: QueryRows) -> Tensor:
        return _sum([part.value_from_rows(rows) for part in self.parts])


def _sum(biases: list[Tensor]) -> Tensor:
    return sum(biases[1:], start=biases[0])


def add(biases: Iterable[AttentionBias | None]) -> AttentionBias | None:
    """Returns the sum of the biases that are not None, or None."""
    parts = tuple(bias for bias in biases if bias is not None)
    return CompositeBias(parts) if len(parts) > 1 else next(iter(parts), None)


@dataclass(frozen=True, eq=False)
class RelativeValues:
    """Vectors added to the values by pair: value(i, j) = v_j + table[index(i - j)].

    Attributes:
        table_KD: (K, D), K the number of classes that `index` gives; shared by all heads.
        clip_distance: distance in tokens from which on all distances have the same class.
    """

    table_KD: Tensor
    index: Index
    clip_distance: int

    def weighted(self, weight_BHRS: Tensor, geo: Geometry, rows: slice) -> Tensor:
        """Returns the (B, H, R, D) sums over the keys of attention weight times vector, for the R queries `rows`."""
        index_RS = self.index(geo.distance(rows).clamp(min=0))
        by_class = weight_BHRS.new_zeros(*weight_BHRS.shape[:-1], len(self.table_KD))
        by_class = by_class.scatter_add(-1, index_RS.expand(weight_BHRS.shape), weight_BHRS)
        return by_class @ self.table_KD.to(weight_BHRS.dtype)
