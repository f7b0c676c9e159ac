"""The bases of extensions by a factor k: any of them, and those that scale the frequencies of a rotation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError, IncompatibleError
from posbench.position.biases import AttentionBias
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, PositionScheme


def check_factor(factor: float | str) -> float:
    """Returns a factor as a float.

    Raises:
        ConfigError: unless it is a finite number of at least 1.
    """
    if isinstance(factor, str) or not 1 <= factor < math.inf:
        raise ConfigError(f"factor {factor!r}: give a number of at least 1, or auto")
    return float(factor)


class FactorExtension(Extension):
    """An extension by a factor k: the multiple of the training length that is to be reached.

    Args:
        factor: k, a number of at least 1; "auto" is eval_len / train_len, and 1 up to the training length.
    """

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, factor: float | str = "auto"
    ) -> None:
        super().__init__(inner, context)
        auto = max(1.0, context.length / context.shape.train_len)
        self.factor = check_factor(self.resolve_auto(factor, lambda: auto))

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}


class FrequencyScaling(FactorExtension):
    """An extension that scales the M angular frequencies theta_0 > ... > theta_{M-1} of a rotation.

    A subclass overrides `scale_inv_freq`, or `inv_freq_transform` where the frequencies depend on the sequence.

    Attributes:
        counts: the values of M among the layers, each at least 2; heads may rotate in part.
    """

    requires = frozenset({"inv_freq"})

    def __init__(
        self, inner: PositionScheme, context: ExtensionContext, factor: float | str = "auto"
    ) -> None:
        super().__init__(inner, context, factor)
        self.counts = count_frequencies(inner, context)
        if min(self.counts, default=2) < 2:
            raise IncompatibleError(
                f"{type(self).__name__} spreads a factor over frequencies and {type(inner).__name__} has one: choose "
                "heads of which at least 4 dimensions rotate"
            )

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        """Maps the frequencies, (M,) float64 radians per token, to the scaled ones."""
        raise NotImplementedError

    def inv_freq_transform(self, geo: Geometry) -> Callable[[Tensor], Tensor]:
        """Returns the map of the frequencies for one geometry; it is a key of cached angles, so equal maps compare equal."""
        return self.scale_inv_freq

    def with_transform(self, inputs: AttentionInputs) -> AttentionInputs:
        """Returns the inputs for the hooks of the inner scheme, with this extension's change of the frequencies."""
        transform = self.inv_freq_transform(inputs.geo)
        return replace(inputs, inv_freq_transforms=(*inputs.inv_freq_transforms, transform))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return self.inner.qk(self.with_transform(inputs))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        # It may be computed from rotated queries and keys.
        return self.inner.attention_bias(self.with_transform(inputs))

    def rotation_ramp(self, inv_freq_M: Tensor, low: float, high: float) -> Tensor:
        """Returns the (M,) values clip((r_m - low) / (high - low), 0, 1), r_m the rotations within the training length.

        Args:
            inv_freq_M: float64 radians per token.
            low, high: numbers of rotations.
        """
        rotations_M = inv_freq_M * self.context.shape.train_len / (2 * math.pi)
        return ((rotations_M - low) / (high - low)).clamp(0, 1)


def count_frequencies(inner: PositionScheme, context: ExtensionContext) -> set[int]:
    """Returns the numbers of frequencies by which the layers of a scheme rotate."""
    return {len(inv_freq_M) for inv_freq_M in frequencies(inner, context)}


def frequencies(inner: PositionScheme, context: ExtensionContext) -> list[Tensor]:
    """Returns the frequencies by which the layers of a scheme rotate, from a call of `qk` on one token of each."""
    like = next(inner.parameters(), torch.empty(0))
    x_BTW = like.new_zeros(1, 1, context.shape.d_model)
    q_BHTD = like.new_zeros(1, context.shape.n_heads, 1, context.shape.head_dim)
    found: list[Tensor] = []

    def record(inv_freq_M: Tensor) -> Tensor:
        found.append(inv_freq_M)
        return inv_freq_M

    geo = Geometry.from_range(0, 1, device=like.device)
    for layer in range(context.shape.n_layers):
        inner.qk(AttentionInputs(layer, geo, x_BTW, x_BTW, q_BHTD, q_BHTD, (record,)))
    return found


@dataclass(frozen=True)
class NTKScaling:
    """rope_theta becomes rope_theta * k^(D / (D - 2)), that is, theta_m becomes theta_m * k^(-m / (M - 1)), M = D / 2.

    The fastest frequency stays and the slowest is divided by k, which is `factor`. bloc97, 2023:
    https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5.
    """

    factor: float

    def __call__(self, inv_freq_M: Tensor) -> Tensor:
        step_M = torch.arange(len(inv_freq_M), device=inv_freq_M.device).double()
        return inv_freq_M * self.factor ** (-step_M / (len(inv_freq_M) - 1))
