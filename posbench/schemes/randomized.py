"""Randomised positions: a sorted random subset of a wide range, so that far positions are trained in short texts.

Ruoss et al. Randomized Positional Encodings Boost Length Generalization of Transformers. ACL 2023, section 3.
arXiv:2305.16843.
Drawn anew in every training step, once for the batch, from torch's global generator. The paper draws in
evaluation as well; here that draw is fixed by the declared length, so that an evaluation can be repeated: a
prefix alone sits elsewhere than in a longer text. A module in training mode draws, one in evaluation mode
does not; the scheme begins in evaluation mode and the trainer says when it trains. Extensions that stretch
positions or a spectrum find nothing to stretch: what they reach for was trained.
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
    """Another scheme that feels token i at P_i, P the sorted values of a random subset of {0 .. M-1}."""

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
        self.traits = replace(self.traits, prefix_stable=False, capabilities=frozenset())
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
            return super().assign_positions(self.moved(geo, self.draw(geo.length)))
        return geo.memo(
            (self, "assign_positions"), lambda: super(Randomized, self).assign_positions(self.evaluated(geo))
        )

    def evaluated(self, geo: Geometry) -> Geometry:
        """The positions of every text of this declared length."""
        return self.moved(geo, self.draw(geo.length, torch.Generator().manual_seed(geo.length)))

    def draw(self, length: int, generator: torch.Generator | None = None) -> Tensor:
        """(length,) int64, ascending; on the CPU, so that every device draws the same."""
        return torch.randperm(self.max_position, generator=generator)[:length].sort().values

    def moved(self, geo: Geometry, position_N: Tensor) -> Geometry:
        """Every token at the position drawn for its index."""
        position_N = position_N.to(geo.q_index_T.device)
        return geo.with_positions(position_N[geo.q_index_T], position_N[geo.k_index_S])
