"""Randomized positions: a sorted random subset of a range much longer than the training length.

Ruoss et al. Randomized Positional Encodings Boost Length Generalization of Transformers. ACL 2023, section 3.
arXiv:2305.16843.
In training, positions are drawn in every step, once for the batch, from torch's global generator. The paper draws in
evaluation as well; here that draw is fixed by the declared length, so that evaluations are reproducible: a prefix
alone has other positions than in a longer text. The scheme starts in evaluation mode. Positions lie below 16 times the
training length by default (2048 for 40 tokens in the authors' example). Extensions that change positions or
frequencies do not apply: the positions that they would reach are trained.
Positions are drawn for every inner scheme. The authors' code (github.com/google-deepmind/
randomized_positional_encodings) draws positions for sinusoids, learned tables and rotations, but sorted distances
0 = d_0 < d_1 < ... for ALiBi and relative encodings: two tokens i - j apart have the distance d_(i - j) there, and
P_i - P_j here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError, LengthError
from posbench.instantiate import register
from posbench.position.compose import Stack
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape


@register("scheme/randomized")
class Randomized(Stack):
    """`base_scheme` with token i at position P_i, P the sorted values of a random subset of {0 .. max_position - 1}."""

    def __init__(
        self, shape: ModelShape, base_scheme: Mapping[str, Any], max_position: int | None = None
    ) -> None:
        self.max_position = 16 * shape.train_len if max_position is None else max_position
        if self.max_position < shape.train_len:
            raise ConfigError(
                f"randomized max_position {self.max_position}: give at least the training length, {shape.train_len}, and the "
                "longest length that is to be evaluated"
            )
        super().__init__(replace(shape, train_len=self.max_position), [base_scheme])
        self.traits = replace(
            self.traits, prefix_stable=False, draws_positions=True, capabilities=frozenset()
        )
        self.eval()

    def check(self, length: int) -> None:
        if length > self.max_position:
            raise LengthError(
                f"{length} tokens have no {length} different positions below {self.max_position}: evaluate at most "
                f"{self.max_position} tokens, or train with a larger max_position"
            )
        super().check(length)

    def assign_positions(self, geo: Geometry) -> Geometry:
        if self.training:
            return super().assign_positions(self.with_drawn_positions(geo))
        return geo.memo(
            (self, "positions"),
            lambda: super(Randomized, self).assign_positions(
                self.with_drawn_positions(geo, torch.Generator().manual_seed(geo.length))
            ),
        )

    def with_drawn_positions(self, geo: Geometry, generator: torch.Generator | None = None) -> Geometry:
        """Returns the geometry with each token at the position drawn for its index."""
        position_N = self.draw(geo.length, generator).to(geo.q_index_T.device)
        return geo.with_positions(position_N[geo.q_index_T], position_N[geo.k_index_S])

    def draw(self, length: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns positions (length,) int64, ascending; drawn on the CPU, so that every device has the same."""
        return torch.randperm(self.max_position, generator=generator)[:length].sort().values
