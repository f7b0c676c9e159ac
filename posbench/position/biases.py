"""The structures of additive logit terms: schemes that share a structure share a kernel.

Every term can write out its logits for a few rows (`value`); that is the specification. A kernel may know
a structure and do better. Negative distances are never visible, so a term may say anything there. A
geometry may hold fewer keys than the term was made for: the first ones, all that the rows may see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posbench.position.geometry import Geometry

# Integer or fractional distances of any shape -> integer classes of that shape.
Index = Callable[[Tensor], Tensor]


def floor_distance(distance: Tensor) -> Tensor:
    """The integer part of distances, int64.

    i/k - j/k may fall short of a whole number by a rounding error, which must not move it down a class.
    """
    return torch.floor(distance + 1e-6).long() if distance.is_floating_point() else distance


@dataclass(frozen=True, eq=False)
class QueryRows:
    """A few queries over the keys, as a kernel holds them while it computes.

    Attributes:
        geo, rows: the geometry, cut to the keys that the rows may see, and which queries these are.
        q_BHRE, k_BHSE: queries and keys as the logits are made of them, the gain applied and not the scale.
        scale: factor on q . k.
        content_BHRS: scale * q . k.
        visible_RS: whether the query sees the key.
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
        """How many keys lie before the first of the rows, which each later row sees one more of; None if not in a row."""
        before = self.geo.index_offset
        return None if before is None else before + (self.rows.start or 0)


def autocast_disabled(x: Tensor) -> AbstractContextManager:
    """Autocast off where `x` is: what is summed over thousands of tokens bears no 8 bits."""
    kind = x.device.type
    available = torch.amp.autocast_mode.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if available else nullcontext()


def upcast(x: Tensor) -> Tensor:
    """In float64 if it is, else in float32: the precisions in which kernels compute."""
    return x if x.dtype == torch.float64 else x.float()


class _FromEnd(torch.autograd.Function):
    """A cumulative sum from the last to the first; autograd's own way back takes three more passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.flip(-1).cumsum(-1).flip(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.cumsum(-1)


def reverse_cumsum(x: Tensor) -> Tensor:
    """Sums over the last dimension, from each place to the end.

    Not the total less what comes before: near the end that is a small difference of large numbers.
    """
    return _FromEnd.apply(x)


def _apart(geo: Geometry, slot_TN: Tensor) -> Tensor:
    """(T, N) tokens from the keys at these places to the queries, as the scheme feels them; not below 0."""
    return (geo.q_pos_T[:, None] - geo.k_pos_S[slot_TN]).clamp(min=0)


class AttentionBias:
    """What is added to the scaled logits of the pairs of one region."""

    # Whether `value_from_rows` needs what a kernel computes, all heads and all visible keys of a row at once.
    needs_full_rows = False

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        """Broadcastable to (B, H, R, S), nats, for the queries in `rows`."""
        raise NotImplementedError

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        """Broadcastable to (B, H, T, N), nats, for each query and N keys of its own, by their place in `geo`."""
        logits = self.value(geo, slice(None))
        logits = logits[(None,) * (4 - logits.dim())]
        logits = logits.expand(*logits.shape[:2], len(geo.q_pos_T), len(geo.k_pos_S))
        return logits.gather(-1, slot_TN.expand(*logits.shape[:2], -1, -1))

    def precompute(self, k_BHSE: Tensor) -> AttentionBias:
        """Asked once a call, before any rows: what depends on the keys alone may be computed here."""
        return self

    def value_from_rows(self, rows: QueryRows) -> Tensor:
        """The same to a kernel, which gives all that it knows of these rows."""
        return self.value(rows.geo, rows.rows)


@dataclass(frozen=True, eq=False)
class DistanceBias(AttentionBias):
    """A function of head and distance alone.

    Attributes:
        of: distances >= 0 of any shape -> (H, *shape) nats. Called once with 0 .. N-1 where positions are
            consecutive, with the distances of the pairs elsewhere.
        cache_owner: the owner of a function without parameters; what is made of it is kept on the geometry.
    """

    of: Callable[[Tensor], Tensor]
    cache_owner: Hashable | None = None

    def table(self, geo: Geometry) -> Tensor:
        """(H, N): distance 0 to the largest of a geometry whose positions are consecutive."""
        assert geo.position_offset is not None
        return self.of(torch.arange(geo.position_offset + len(geo.q_pos_T), device=geo.q_pos_T.device))

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        distance_RS = geo.distance(rows).clamp(min=0)
        return self.of(distance_RS) if geo.position_offset is None else self.table(geo)[:, distance_RS]

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        return self.of(_apart(geo, slot_TN))


@dataclass(frozen=True, eq=False)
class SeparableBias(AttentionBias):
    """A part of the query and a part of the key: row(i) + column(j)."""

    row_BHT: Tensor
    column_BHS: Tensor

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        return self.row_BHT[..., rows, None] + self.column_BHS[..., None, : len(geo.k_pos_S)]

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        return self.row_BHT[..., None] + self.column_BHS[..., slot_TN]


@dataclass(frozen=True, eq=False)
class QueryContentBias(AttentionBias):
    """What query i says of the class of a pair: content[i, index(distance)]."""

    content_BHTK: Tensor
    index: Index

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        content_BHRK = self.content_BHTK[:, :, rows]
        index_RS = self.index(geo.distance(rows).clamp(min=0))
        return content_BHRK.gather(-1, index_RS.expand(*content_BHRK.shape[:2], *index_RS.shape))

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        index_TN = self.index(_apart(geo, slot_TN))
        return self.content_BHTK.gather(-1, index_TN.expand(*self.content_BHTK.shape[:2], *index_TN.shape))


@dataclass(frozen=True, eq=False)
class KeyContentBias(AttentionBias):
    """What key j says of the class of a pair: content[j, index(distance)]."""

    content_BHSK: Tensor
    index: Index

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        index_SR = self.index(geo.distance(rows).clamp(min=0)).transpose(0, 1)
        content_BHSK = self.content_BHSK[:, :, : len(geo.k_pos_S)]
        gathered = content_BHSK.gather(-1, index_SR.expand(*content_BHSK.shape[:2], *index_SR.shape))
        return gathered.transpose(-1, -2)

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        return self.content_BHSK[:, :, slot_TN, self.index(_apart(geo, slot_TN))]


@dataclass(frozen=True, eq=False)
class ElementwiseBias(AttentionBias):
    """Any closed form of the two positions: of(q_pos (R, 1), k_pos (1, S)) -> broadcastable to (B, H, R, S)."""

    of: Callable[[Tensor, Tensor], Tensor]

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        return self.of(geo.q_pos_T[rows, None], geo.k_pos_S[None, :])


@dataclass(frozen=True, eq=False)
class RowwiseBias(AttentionBias):
    """A function of a row's logits over all keys that it sees, and of all heads at once.

    Where what it adds to a pair depends on other pairs, the pairs cannot be split into regions, and its scheme
    is not `lse_mergeable`.

    Attributes:
        of: rows as a kernel holds them -> broadcastable to (B, H, R, S); what was prepared comes second.
        q_BHTD, k_BHSD: what it is a function of where no kernel asks: the layer's own queries and keys.
        prepare: what is computed of all keys, once a call.
    """

    of: Callable[..., Tensor]
    q_BHTD: Tensor
    k_BHSD: Tensor
    prepare: Callable[[Tensor], Any] | None = None
    prepared: tuple[Any, ...] = ()

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
        with autocast_disabled(rows.content_BHRS):
            return self.of(rows, *self.prepared)


@dataclass(frozen=True, eq=False)
class CompositeBias(AttentionBias):
    """Several terms on one layer."""

    parts: tuple[AttentionBias, ...]

    @property
    def needs_full_rows(self) -> bool:  # type: ignore[override]
        return any(part.needs_full_rows for part in self.parts)

    def precompute(self, k_BHSE: Tensor) -> AttentionBias:
        return CompositeBias(tuple(part.precompute(k_BHSE) for part in self.parts))

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        first, *others = (part.value(geo, rows) for part in self.parts)
        return sum(others, start=first)

    def gather(self, geo: Geometry, slot_TN: Tensor) -> Tensor:
        first, *others = (part.gather(geo, slot_TN) for part in self.parts)
        return sum(others, start=first)

    def value_from_rows(self, rows: QueryRows) -> Tensor:
        first, *others = (part.value_from_rows(rows) for part in self.parts)
        return sum(others, start=first)


def add(biases: Iterable[AttentionBias | None]) -> AttentionBias | None:
    """The sum of the terms that are there, or None."""
    parts = tuple(bias for bias in biases if bias is not None)
    return CompositeBias(parts) if len(parts) > 1 else next(iter(parts), None)


@dataclass(frozen=True, eq=False)
class RelativeValues:
    """What is added to the values per pair: the row of `table` for the class of the pair's distance.

    Attributes:
        clip_distance: the first distance in tokens from which on all are of one class.
    """

    table_KD: Tensor
    index: Index
    clip_distance: int

    def weighted(self, weight_BHRS: Tensor, geo: Geometry, rows: slice) -> Tensor:
        """(B, H, R, D): the attention-weighted sum over the keys."""
        index_RS = self.index(geo.distance(rows).clamp(min=0))
        by_class = weight_BHRS.new_zeros(*weight_BHRS.shape[:-1], len(self.table_KD))
        by_class = by_class.scatter_add(-1, index_RS.expand(weight_BHRS.shape), weight_BHRS)
        return by_class @ self.table_KD.to(weight_BHRS.dtype)
