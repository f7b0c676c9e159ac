"""Where tokens are, and where the position scheme feels them.

Indices say what a token may see (causality, windows); positions say what a scheme is told. The two are
equal until something moves the positions: interpolation, random positions, the far region of ReRoPE.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

# (i, j) -> may query index i see key index j? Broadcasting integer tensors in, booleans out. Causality is
# not part of a mask: every kernel adds it. A function of indices serves every kernel alike; posbench.position.masks has those
# that are values.
Mask = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The queries and the keys of one attention call.

    Attributes:
        q_index_T: (T,) int64, index of each query in its sequence.
        k_index_S: (S,) int64, index of each key in its sequence.
        q_pos_T: (T,) int64 or float64 tokens, where the scheme feels each query.
        k_pos_S: (S,) int64 or float64 tokens, where the scheme feels each key.
        length: declared number of tokens of the whole sequence, which may exceed S while it is still read.
        position_offset: q_pos_T[0] - k_pos_S[0] where both run in steps of one, else None. With one, a
            function of distance is a Toeplitz matrix of one short table.
        first_query, first_key: index of the first of each where both run in steps of one, else None.
    """

    q_index_T: Tensor
    k_index_S: Tensor
    q_pos_T: Tensor
    k_pos_S: Tensor
    length: int
    position_offset: int | None
    first_query: int | None = None
    first_key: int | None = None
    _memo: dict[Hashable, object] = field(default_factory=dict, repr=False)

    @classmethod
    def from_range(
        cls, start: int, stop: int, length: int | None = None, device: torch.device | str | None = None
    ) -> Geometry:
        """Queries start .. stop-1 over the keys 0 .. stop-1, positions equal to indices."""
        with torch.inference_mode(False):  # a model keeps it, and may be trained after it was evaluated
            index = torch.arange(stop, device=device)
        return cls(index[start:], index, index[start:], index, length or stop, start, start, 0)

    def with_positions(
        self, q_pos_T: Tensor, k_pos_S: Tensor, position_offset: int | None = None
    ) -> Geometry:
        """The same tokens, felt elsewhere."""
        return replace(self, q_pos_T=q_pos_T, k_pos_S=k_pos_S, position_offset=position_offset, _memo={})

    def trim_to_visible_keys(self, rows: slice) -> Geometry:
        """The same queries over fewer keys: the first ones, as many as causality lets `rows` see."""
        hidden = len(self.q_index_T) - rows.indices(len(self.q_index_T))[1]
        if not self.ordered or hidden <= 0:
            return self
        return self._with_keys(0, len(self.k_index_S) - hidden)

    def slice_keys(self, start: int, stop: int) -> Geometry:
        """The same queries over a part of the keys; the same object each time."""
        return self.memo(("keys", start, stop), lambda: self._with_keys(start, stop))

    def _with_keys(self, start: int, stop: int) -> Geometry:
        return replace(
            self,
            k_index_S=self.k_index_S[start:stop],
            k_pos_S=self.k_pos_S[start:stop],
            position_offset=None if self.position_offset is None else self.position_offset - start,
            first_key=None if self.first_key is None else self.first_key + start,
            _memo={},
        )

    @property
    def ordered(self) -> bool:
        """Whether the keys are tokens in a row and the queries the last of them."""
        if self.first_query is None or self.first_key is None:
            return False
        return self.first_query + len(self.q_index_T) == self.first_key + len(self.k_index_S)

    @property
    def index_offset(self) -> int | None:
        """How many places the first key lies before the first query; None unless both are tokens in a row."""
        if self.first_query is None or self.first_key is None:
            return None
        return self.first_query - self.first_key

    @property
    def square(self) -> bool:
        """Whether the queries are all the keys, in order: the plain causal case."""
        return self.ordered and len(self.q_index_T) == len(self.k_index_S)

    @property
    def keys_all_past(self) -> bool:
        """Whether every key lies before every query, so that causality hides none."""
        if self.first_query is None or self.first_key is None:
            return False
        return self.first_key + len(self.k_index_S) <= self.first_query

    @property
    def n_read(self) -> int:
        """Tokens of the sequence up to the last query."""
        if self.first_query is None:
            return int(self.q_index_T.max()) + 1
        return self.first_query + len(self.q_index_T)

    @property
    def key_span(self) -> int:
        """Tokens from the first key to the last query, both among them: what a window must hold to hide nothing."""
        if self.first_query is None or self.first_key is None:
            return int(self.q_index_T.max() - self.k_index_S.min()) + 1
        return self.first_query + len(self.q_index_T) - self.first_key

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
