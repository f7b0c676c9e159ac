"""Indices and positions of the queries and keys of an attention call.

Causality and masks use indices; position schemes use positions. The two are equal until an extension or a scheme
assigns other positions: interpolation, random positions, the far region of ReRoPE.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from types import FunctionType, MethodType
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

# Maps broadcastable integer tensors of query indices i and key indices j to booleans: True if i may attend to j.
# Causality is not part of a mask: every kernel adds it. posbench.position.masks has masks that kernels can prune.
Mask = Callable[[Tensor, Tensor], Tensor]


def apply_mask(mask: Mask, i: Tensor, j: Tensor) -> Tensor:
    """Returns mask(i, j)."""
    # torch 2.11 cannot trace the call of a dataclass in a compiled graph.
    return mask(i, j) if isinstance(mask, FunctionType | MethodType) else mask.__call__(i, j)  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The T queries and S keys of one attention call.

    Attributes:
        q_index_T, k_index_S: int64 index of each query and key in its sequence.
        q_pos_T, k_pos_S: int64 or float64 position of each query and key, in tokens.
        length: declared number of tokens of the whole sequence; more than S if later tokens are still to come.
        position_offset: q_pos_T[0] - k_pos_S[0] if both run in steps of one, else None. If it is not None, a
            function of distance is a Toeplitz matrix of one short table.
        first_query, first_key: q_index_T[0] and k_index_S[0] if both run in steps of one, else None.
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
        """Returns queries start .. stop-1 over keys 0 .. stop-1, with positions equal to indices.

        Args:
            length: declared length in tokens of the whole sequence, by default `stop`.
        """
        # A model keeps the geometry, and may be trained after it was evaluated in inference mode.
        with torch.inference_mode(False):
            index = torch.arange(stop, device=device)
        return cls(index[start:], index, index[start:], index, length or stop, start, start, 0)

    def with_positions(
        self, q_pos_T: Tensor, k_pos_S: Tensor, position_offset: int | None = None
    ) -> Geometry:
        """Returns the same tokens at other positions.

        Args:
            q_pos_T, k_pos_S: int64 or float64 positions in tokens.
            position_offset: q_pos_T[0] - k_pos_S[0] if both run in steps of one, else None.
        """
        return replace(self, q_pos_T=q_pos_T, k_pos_S=k_pos_S, position_offset=position_offset, _memo={})

    def trim_to_visible_keys(self, rows: slice) -> Geometry:
        """Returns the same queries over the first keys only: those that causality lets any of `rows` see."""
        hidden = 0 if rows.stop is None else len(self.q_index_T) - rows.stop
        if not self.ordered or hidden <= 0:
            return self
        return self._with_keys(0, len(self.k_index_S) - hidden)

    def repeat_queries(self, times: int) -> Geometry:
        """Returns the queries `times` times over, at consecutive indices; every key must lie before them. Memoized."""

        def compute() -> Geometry:
            assert self.first_query is not None
            stop = self.first_query + times * len(self.q_index_T)
            index = torch.arange(self.first_query, stop, device=self.q_index_T.device)
            return replace(self, q_index_T=index, q_pos_T=index, position_offset=None, _memo={})

        return self if times == 1 else self.memo(("repeated", times), compute)

    def slice_keys(self, start: int, stop: int) -> Geometry:
        """Returns the same queries over keys start .. stop-1 of this geometry; memoized."""
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
        """Whether the keys have consecutive indices and the queries are the last of them."""
        if self.first_query is None or self.first_key is None:
            return False
        return self.first_query + len(self.q_index_T) == self.first_key + len(self.k_index_S)

    @property
    def index_offset(self) -> int | None:
        """Index of the first query minus index of the first key, or None if indices are not consecutive."""
        if self.first_query is None or self.first_key is None:
            return None
        return self.first_query - self.first_key

    @property
    def square(self) -> bool:
        """Whether queries and keys are the same consecutive tokens: plain causal attention."""
        return self.ordered and len(self.q_index_T) == len(self.k_index_S)

    @property
    def keys_all_past(self) -> bool:
        """Whether every key lies before every query, so that causality hides none."""
        if self.first_query is None or self.first_key is None:
            return False
        return self.first_key + len(self.k_index_S) <= self.first_query

    @property
    def n_read(self) -> int:
        """Number of tokens of the sequence up to and including the last query."""
        if self.first_query is None:
            return int(self.q_index_T.max()) + 1
        return self.first_query + len(self.q_index_T)

    @property
    def key_span(self) -> int:
        """Number of tokens from the first key to the last query, inclusive; a window of that size hides no key."""
        if self.first_query is None or self.first_key is None:
            return int(self.q_index_T.max() - self.k_index_S.min()) + 1
        return self.first_query + len(self.q_index_T) - self.first_key

    def distance(self, rows: slice = slice(None)) -> Tensor:
        """Returns the (R, S) distances in tokens from each key to each query of `rows`, between positions."""
        return self.q_pos_T[rows, None] - self.k_pos_S

    def visible(self, masks: tuple[Mask, ...] = (), rows: slice = slice(None)) -> Tensor:
        """Returns (R, S) booleans: True where causality and every mask allow the pair."""
        i, j = self.q_index_T[rows, None], self.k_index_S[None, :]
        seen = j <= i
        for mask in masks:
            seen = seen & apply_mask(mask, i, j)
        return seen

    def memo(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Returns `compute()`, computed once per geometry and key, without gradients.

        For tables that every layer and step needs again, such as the angles of RoPE.

        Args:
            key: everything that the result depends on besides the geometry.
        """
        if key not in self._memo:
            # A result computed in evaluation may be used again in training.
            with torch.inference_mode(False), torch.no_grad():
                self._memo[key] = compute()
        return self._memo[key]  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Region:
    """A subset of the pairs and the geometry in which the scheme evaluates it.

    Attributes:
        geo: the geometry.
        mask: the pairs of the region; None for all.
    """

    geo: Geometry
    mask: Mask | None = None
