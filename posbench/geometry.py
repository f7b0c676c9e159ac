"""Where tokens are, and where the position scheme feels them.

Indices say what a token may see (causality, windows); positions say what a scheme is told. The two are
equal until something moves the positions: interpolation, random positions, the far region of ReRoPE.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

# (i, j) -> may query index i see key index j? Broadcasting integer tensors in, booleans out. Causality is
# not part of a mask: every kernel adds it. A function of indices serves every kernel alike.
Mask = Callable[[Tensor, Tensor], Tensor]


def both(*masks: Mask | None) -> Mask | None:
    """The mask that allows what all of them allow; None allows everything."""
    present = [mask for mask in masks if mask is not None]
    if len(present) < 2:
        return present[0] if present else None
    return lambda i, j: reduce(and_, (mask(i, j) for mask in present))


@dataclass(frozen=True, eq=False)
class Geometry:
    """The queries and the keys of one attention call.

    Attributes:
        q_index_T: (T,) int64, index of each query in its sequence.
        k_index_S: (S,) int64, index of each key in its sequence.
        q_pos_T: (T,) int64 or float64 tokens, where the scheme feels each query.
        k_pos_S: (S,) int64 or float64 tokens, where the scheme feels each key.
        length: declared number of tokens of the whole sequence, which may exceed S while it is still read.
        offset: q_pos_T[0] - k_pos_S[0] where both run in steps of one, else None. With an offset a
            function of distance is a Toeplitz matrix of one short table.
        ordered: whether the keys are the tokens 0 .. S-1 in order and the queries the last of them.
    """

    q_index_T: Tensor
    k_index_S: Tensor
    q_pos_T: Tensor
    k_pos_S: Tensor
    length: int
    offset: int | None
    ordered: bool = False
    _memo: dict[Hashable, object] = field(default_factory=dict, repr=False)

    @classmethod
    def span(
        cls, start: int, stop: int, length: int | None = None, device: torch.device | str | None = None
    ) -> Geometry:
        """Queries start .. stop-1 over the keys 0 .. stop-1, positions equal to indices."""
        with torch.inference_mode(False):  # a model keeps it, and may be trained after it was evaluated
            index = torch.arange(stop, device=device)
        return cls(index[start:], index, index[start:], index, length or stop, start, ordered=True)

    def at(self, q_pos_T: Tensor, k_pos_S: Tensor, offset: int | None = None) -> Geometry:
        """The same tokens, felt elsewhere."""
        return replace(self, q_pos_T=q_pos_T, k_pos_S=k_pos_S, offset=offset, _memo={})

    def seen_by(self, rows: slice) -> Geometry:
        """The same queries over fewer keys: the first ones, as many as causality lets `rows` see."""
        hidden = len(self.q_index_T) - rows.indices(len(self.q_index_T))[1]
        if not self.ordered or hidden <= 0:
            return self
        keys = slice(0, len(self.k_index_S) - hidden)
        return replace(
            self, k_index_S=self.k_index_S[keys], k_pos_S=self.k_pos_S[keys], ordered=False, _memo={}
        )

    @property
    def square(self) -> bool:
        """Whether the queries are all the keys, in order: the plain causal case."""
        return len(self.q_index_T) == len(self.k_index_S)

    def distance(self, rows: slice = slice(None)) -> Tensor:
        """(R, S) tokens from each key to each query of `rows`, as the scheme feels it."""
        return self.q_pos_T[rows, None] - self.k_pos_S

    def visible(self, masks: tuple[Mask, ...] = (), rows: slice = slice(None)) -> Tensor:
        """(R, S) booleans: causal, and allowed by every mask."""
        i, j = self.q_index_T[rows, None], self.k_index_S[None, :]
        seen = j <= i
        for mask in masks:
            seen = seen & mask(i, j)
        return seen

    def memo(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What `compute` returns, computed once for this geometry.

        For tables without gradient that every layer and every step asks for again, such as the angles of
        RoPE. The key must name all that the result depends on besides the geometry.
        """
        if key not in self._memo:
            # Made in evaluation, it may be asked for again in training.
            with torch.inference_mode(False), torch.no_grad():
                self._memo[key] = compute()
        return self._memo[key]  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the pairs and the geometry in which the scheme sees it; regions partition the pairs."""

    geo: Geometry
    mask: Mask | None = None
