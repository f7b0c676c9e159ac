"""A context extension: a scheme around a trained scheme. The trained model is never patched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError, IncompatibleError
from posbench.position.biases import AttentionBias, RelativeValues
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme


@dataclass(frozen=True)
class ExtensionContext:
    """What an extension may know: the model's shape and the length in tokens that is evaluated."""

    shape: ModelShape
    length: int

    def factor(self, given: float | str) -> float:
        """k: how many times the training length is to be reached; "auto" is the evaluated length over it.

        At the training length and below "auto" is 1, where an extension changes nothing.
        """
        if given == "auto":
            return max(1.0, self.length / self.shape.train_len)
        if isinstance(given, str) or not 1 <= given < math.inf:
            raise ConfigError(
                f"factor {given!r}: give a number of at least 1, or auto for eval_len / train_len"
            )
        return float(given)

    def tokens(self, setting: str, given: int | None, default: int, least: int = 1) -> int:
        """A setting that counts tokens; None is its default."""
        count = default if given is None else given
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ConfigError(
                f"{setting} {count!r}: give a whole number of tokens of at least {least}, or null for the default"
            )
        return count


PAIR_HOOKS = (
    "regions",
    "mask",
    "qk",
    "logit_scale",
    "attention_bias",
    "relative_values",
    "softmax_normalizer",
)


class Extension(PositionScheme):
    """Delegates every hook; a subclass changes what it must.

    Class attributes:
        requires: capabilities that the inner scheme must have.
        requires_relative: whether the inner scheme must feel distances only.
        splits_regions: whether it splits the pairs into regions, which the inner scheme must bear.
    """

    requires: frozenset[str] = frozenset()
    requires_relative = False
    splits_regions = False

    def __init_subclass__(cls) -> None:
        """Who changes what happens between pairs needs pairs; who bounds what is seen needs it unbounded."""
        super().__init_subclass__()
        if any(hook in vars(cls) for hook in PAIR_HOOKS):
            cls.requires = cls.requires | {"softmax attention"}
        if "regions" in vars(cls) or "mask" in vars(cls):
            cls.requires = cls.requires | {"unbounded context"}
        if cls.splits_regions:
            cls.requires = cls.requires | {"mergeable regions"}

    def __init__(self, inner: PositionScheme, context: ExtensionContext) -> None:
        super().__init__()
        name = type(self).__name__
        missing = self.requires - inner.traits.capabilities
        if missing:
            raise IncompatibleError(
                f"{name} needs a scheme with {', '.join(sorted(missing))}; {type(inner).__name__} has "
                f"{', '.join(sorted(inner.traits.capabilities)) or 'none of what extensions use'}"
            )
        if self.requires_relative and not inner.traits.relative:
            raise IncompatibleError(
                f"{name} needs a scheme that feels distances only; {type(inner).__name__} feels absolute positions"
            )
        self.inner = inner
        self.context = context
        self.traits = inner.traits

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        """Settings with which nothing changes in sequences of up to `length` tokens; a law holds it to them."""
        raise NotImplementedError

    def depends_on_length(self, given: float | str) -> None:
        """Take back the promise of prefix stability where a setting follows the evaluated length."""
        if given == "auto":
            self.traits = replace(self.traits, prefix_stable=False)

    def scale_inner(self, own: Tensor | float, inputs: AttentionInputs) -> Tensor:
        """The inner logit_scale multiplied by `own`, broadcastable to (B, H, T)."""
        inner = self.inner.logit_scale(inputs)
        own = torch.as_tensor(own, dtype=torch.float64, device=inputs.q_BHTD.device)
        return own if inner is None else own * inner

    def check(self, length: int) -> None:
        self.inner.check(length)

    def assign_positions(self, geo: Geometry) -> Geometry:
        return self.inner.assign_positions(geo)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return self.inner.embed(x_BTW, geo, layer)

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        return self.inner.regions(inputs)

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        return self.inner.mask(inputs)

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return self.inner.qk(inputs)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.inner.logit_scale(inputs)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        return self.inner.attention_bias(inputs)

    def relative_values(self, inputs: AttentionInputs) -> RelativeValues | None:
        return self.inner.relative_values(inputs)

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        return self.inner.softmax_normalizer(inputs)

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        return self.inner.attention(inputs, v_BHSD, kernel)


class FrequencyScaling(Extension):
    """An extension that changes the angular frequencies of a rotation."""

    requires = frozenset({"inv_freq"})

    def __init__(self, inner: PositionScheme, context: ExtensionContext) -> None:
        super().__init__(inner, context)
        if context.shape.head_dim < 4:
            raise IncompatibleError(
                f"{type(self).__name__} spreads a factor over frequencies and a head dimension of "
                f"{context.shape.head_dim} has one: choose heads of at least 4 dimensions"
            )

    def scale_inv_freq(self, inv_freq_M: Tensor) -> Tensor:
        """(M,) float64 radians per token in, the changed ones out."""
        raise NotImplementedError

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return self.inner.qk(
            replace(inputs, inv_freq_transforms=(*inputs.inv_freq_transforms, self.scale_inv_freq))
        )
