"""The base of context extensions: schemes around a trained scheme, which leave the trained model unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from posbench.errors import ConfigError, IncompatibleError
from posbench.position.biases import AttentionBias, RelativeValues
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.scheme import PAIR_HOOKS, AttentionInputs, ModelShape, PositionScheme

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class ExtensionContext:
    """Values of a model and of an evaluation on which an extension may depend.

    Attributes:
        shape: the sizes of the model, its training length included.
        length: evaluated length in tokens, for which the extension is built.
    """

    shape: ModelShape
    length: int

    def tokens(self, setting: str, given: int | None, default: int | None = None, least: int = 1) -> int:
        """Returns the value of a setting that counts tokens.

        Args:
            setting: its name in errors.
            given: its value; None for `default`.
            default: None for a setting without a default.
            least: smallest possible value.

        Raises:
            ConfigError: if it is not a whole number of at least `least`.
        """
        count = default if given is None else given
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            or_default = "" if default is None else ", or null for the default"
            raise ConfigError(
                f"{setting} {count!r}: give a whole number of tokens of at least {least}{or_default}"
            )
        return count


class Extension(PositionScheme):
    """A scheme around a trained scheme `inner`, built for one evaluated length; every hook delegates to `inner`.

    A subclass overrides the hooks that it changes, and `noop_settings`. Its settings are keyword arguments of
    `__init__` behind `inner` and `context`, each with its default. It adds no parameters.

    Class attributes:
        requires: capabilities that the inner scheme must have, of `Traits.capabilities`. Added automatically are
            "softmax attention" where a hook of PAIR_HOOKS is overridden, "unbounded context" where `regions` or
            `mask` is, "scalable logits" where `logit_scale` is, and "mergeable regions" with `splits_regions`.
        requires_relative: whether the inner scheme must depend on distances only.
        splits_regions: whether `regions` adds regions to those of the inner scheme.

    Args:
        inner: the trained scheme, or an extension of it.

    Raises:
        IncompatibleError: if the inner scheme does not meet these requirements.
    """

    requires: frozenset[str] = frozenset()
    requires_relative = False
    splits_regions = False

    def __init_subclass__(cls) -> None:
        """Adds the capabilities that follow from the overridden hooks, inherited ones included, to `requires`."""
        super().__init_subclass__()
        overridden = {hook for hook in PAIR_HOOKS if getattr(cls, hook) is not getattr(Extension, hook)}
        if overridden:
            cls.requires = cls.requires | {"softmax attention"}
        if overridden & {"regions", "mask"}:
            cls.requires = cls.requires | {"unbounded context"}
        if "logit_scale" in overridden:
            cls.requires = cls.requires | {"scalable logits"}
        if cls.splits_regions:
            cls.requires = cls.requires | {"mergeable regions"}

    def __init__(self, inner: PositionScheme, context: ExtensionContext) -> None:
        super().__init__()
        name = type(self).__name__
        missing = self.requires - inner.traits.capabilities
        if missing:
            raise IncompatibleError(
                f"{name} needs a scheme with {', '.join(sorted(missing))}; {type(inner).__name__} has "
                f"{', '.join(sorted(inner.traits.capabilities)) or 'no capability that extensions use'}"
            )
        if self.requires_relative and not inner.traits.relative:
            raise IncompatibleError(
                f"{name} needs a scheme that depends on distances only; {type(inner).__name__} depends on absolute positions"
            )
        self.inner = inner
        self.context = context
        self.traits = inner.traits

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        """Returns settings with which sequences of up to `length` tokens are computed as without the extension.

        tests/laws/test_extension_laws.py checks this around every scheme.
        """
        raise NotImplementedError

    def resolve_auto(self, given: Setting | str, auto: Callable[[], Setting]) -> Setting | str:
        """Returns a setting, or `auto()` where "auto" is given.

        A value from the evaluated length also changes what is computed for a prefix: `prefix_stable` becomes False.

        Args:
            auto: computes the value from the evaluated length.
        """
        if given != "auto":
            return given
        self.traits = replace(self.traits, prefix_stable=False)
        return auto()

    def scale_inner(self, own: Tensor | float, inputs: AttentionInputs) -> Tensor:
        """Returns `own` times the inner scheme's `logit_scale`, float64, broadcastable to (B, H, T)."""
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

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        return self.inner.attention_output(out_BHTD, x_BTW, layer)

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        return self.inner.softmax_normalizer(inputs)

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        return self.inner.attention(inputs, v_BHSD, kernel)
