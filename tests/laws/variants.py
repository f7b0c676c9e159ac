"""The variants that laws run on: every scheme and every extension around it, from the files in configs/."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import posbench
from posbench.errors import IncompatibleError, LengthError, UndefinedError
from posbench.instantiate import instantiate, locate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.position.biases import AttentionBias, CompositeBias
from posbench.position.call import Kernel
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme

PACKAGE = Path(posbench.__file__).parent
CONFIGS = PACKAGE.parent / "configs"
SIZE, VOCABULARY = Size(n_layers=2, d_model=32, n_heads=4), 50
# Their ratio is not a power of two, so that interpolated positions are inexact, as in most evaluations.
TRAIN_LEN, LENGTH = 16, 56
SHAPE = SIZE.shape(TRAIN_LEN)


def listed(group: str) -> dict[str, dict[str, Any] | None]:
    """Returns the build settings of each yaml of a group by file name."""
    files = sorted((CONFIGS / group).glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text())["build"] for file in files}


SCHEMES = listed("scheme")
EXTENSIONS = {name: settings for name, settings in listed("extension").items() if settings is not None}


@dataclass(frozen=True)
class Variant:
    """A scheme, alone or extended."""

    scheme: str
    extension: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}+{self.extension}" if self.extension else self.scheme

    def inner(self, shape: ModelShape = SHAPE, seed: int = 0) -> PositionScheme:
        """Returns the scheme with which the model is trained."""
        settings = SCHEMES[self.scheme]
        assert settings is not None
        return build_scheme(settings, shape, seed)

    def around(
        self, inner: PositionScheme, length: int, shape: ModelShape = SHAPE, **changed: Any
    ) -> PositionScheme:
        """Returns the scheme with which the model is evaluated at `length` tokens."""
        if self.extension is None:
            return inner
        return instantiate(
            {**EXTENSIONS[self.extension], **changed}, Extension, inner, ExtensionContext(shape, length)
        )


def is_defined(scheme: PositionScheme, length: int) -> bool:
    """Whether the scheme is defined at this length."""
    try:
        scheme.check(length)
    except (UndefinedError, LengthError):
        return False
    return True


@torch.no_grad()
def structure(scheme: PositionScheme) -> set[str]:
    """Returns the traits of a scheme and the hooks that it uses: all that extensions and kernels depend on."""
    draw = torch.Generator().manual_seed(0)
    size = 2 * TRAIN_LEN
    length = size if is_defined(scheme, size) else TRAIN_LEN
    stream = torch.randn(1, length, SHAPE.d_model, generator=draw)
    q, k, v = torch.randn(3, 1, SHAPE.n_heads, length, SHAPE.head_dim, generator=draw)
    plain = Geometry.from_range(0, length)
    geo = scheme.assign_positions(plain)
    found = {"moves positions"} if geo is not plain else set()
    found |= {f"{name} {value}" for name, value in vars(scheme.traits).items() if isinstance(value, bool)}
    found |= {f"has {one}" for one in scheme.traits.capabilities}
    for layer in range(SHAPE.n_layers):
        inputs = AttentionInputs(layer, geo, stream, stream, q, k)
        found |= {"embeds"} if scheme.embed(stream, geo, layer) is not stream else set()
        found |= (
            {"own attention"} if scheme.attention(inputs, v, KernelDispatcher("auto")) is not None else set()
        )
        found |= {"changes outputs"} if scheme.attention_output(q, stream, layer) is not q else set()
        found |= {"regions"} if len(scheme.regions(inputs)) > 1 else set()
        for hook in ("mask", "logit_scale", "relative_values", "softmax_normalizer"):
            found |= {hook} if getattr(scheme, hook)(inputs) is not None else set()
        found |= {type(part).__name__ for part in parts(scheme.attention_bias(inputs))}
    return found


def parts(bias: AttentionBias | None) -> tuple[AttentionBias, ...]:
    """Returns the summands of a bias."""
    if bias is None:
        return ()
    return (
        tuple(one for part in bias.parts for one in parts(part))
        if isinstance(bias, CompositeBias)
        else (bias,)
    )


PLAIN = ("nope", "sinusoidal", "learned", "rope", "alibi", "t5")


def kind(extension: str) -> frozenset[str]:
    """Returns what an extension requires and the hooks that it overrides: all that an inner scheme depends on."""
    target = locate(EXTENSIONS[extension]["_target_"])
    hooks = {name for name in vars(PositionScheme) if not name.startswith("_") and hasattr(Extension, name)}
    overridden = {hook for hook in hooks if getattr(target, hook) is not getattr(Extension, hook)}
    return frozenset({*overridden, *target.requires, f"requires_relative {target.requires_relative}"})


def group_extensions() -> tuple[list[Variant], list[Variant]]:
    """Returns a subset of the compatible pairs of scheme and extension, and all incompatible pairs.

    The subset has the plain schemes with each extension, and for each kind of extension one scheme for every trait and
    hook that these lack, in turn with the extensions of the kind. Laws run on the subset, since all pairs would take
    much longer and test nothing more; with POSBENCH_PAIRS=all in the environment they run on all.
    """
    incompatible, able = [], dict[str, list[str]]()
    inner = {scheme: Variant(scheme).inner() for scheme in SCHEMES}
    structures = {scheme: structure(one) for scheme, one in inner.items()}
    kinds: dict[frozenset[str], list[str]] = {}
    for extension in EXTENSIONS:
        kinds.setdefault(kind(extension), []).append(extension)
        able[extension] = []
        for scheme in SCHEMES:
            variant = Variant(scheme, extension)
            try:
                variant.around(inner[scheme], TRAIN_LEN)
                able[extension].append(scheme)
            except IncompatibleError:
                incompatible.append(variant)
    if os.environ.get("POSBENCH_PAIRS") == "all":
        return [Variant(scheme, extension) for extension in able for scheme in able[extension]], incompatible
    chosen = {extension: [one for one in able[extension] if one in PLAIN] for extension in EXTENSIONS}
    for members in kinds.values():
        covered = set().union(*(structures[scheme] for one in members for scheme in chosen[one]))
        while rest := [
            scheme for scheme in SCHEMES if structures[scheme] - covered and able_in(members, able, scheme)
        ]:
            best = max(rest, key=lambda scheme: len(structures[scheme] - covered))
            # The extension with the fewest schemes so far.
            chosen[min(able_in(members, able, best), key=lambda one: len(chosen[one]))].append(best)
            covered |= structures[best]
    return [Variant(scheme, extension) for extension in chosen for scheme in chosen[extension]], incompatible


def able_in(extensions: list[str], able: dict[str, list[str]], scheme: str) -> list[str]:
    """Returns the extensions that support a scheme."""
    return [one for one in extensions if scheme in able[one]]


ALONE = [Variant(scheme) for scheme in SCHEMES]
EXTENDED, INCOMPATIBLE = group_extensions()

each_scheme = pytest.mark.parametrize("variant", ALONE, ids=str)
each_extended = pytest.mark.parametrize("variant", EXTENDED, ids=str)
each_variant = pytest.mark.parametrize("variant", ALONE + EXTENDED, ids=str)


@dataclass
class VariantModel:
    """A small model in float64 and a variant around its scheme, for sequences of `length` tokens."""

    model: GPT
    length: int

    @property
    def scheme(self) -> PositionScheme:
        return self.model.scheme

    def __call__(self, ids_BT: Tensor, kernel: Kernel | None = None, **settings: Any) -> Tensor:
        """Returns the (B, T, W) final hidden states."""
        return self.model(ids_BT, kernel=kernel, **settings)[0]


def model_of(variant: Variant, seed: int = 0) -> GPT:
    return GPT(SIZE, VOCABULARY, variant.inner(seed=seed), seed).double()


def build(variant: Variant, length: int = LENGTH, **changed: Any) -> VariantModel:
    """Returns the variant at `length` tokens, or at the training length if it is undefined beyond."""
    torch.manual_seed(0)
    model = model_of(variant)
    scheme = variant.around(model.scheme, length, **changed)
    if not is_defined(scheme, length):
        length = TRAIN_LEN
        scheme = variant.around(model.scheme, length, **changed)
    return VariantModel(model.with_scheme(scheme), length)


def tokens(*shape: int, seed: int = 1) -> Tensor:
    """Returns random ids."""
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def assert_trait(expected: bool, one: Tensor, other: Tensor, tolerance: float) -> None:
    """Asserts that two tensors are equal if the trait is True, and differ if it is False."""
    worst = float((one - other).detach().abs().max())
    if expected:
        assert worst <= tolerance, f"the trait is True, and outputs differ by {worst:.2g}"
    else:
        assert worst > 1e-6, f"the trait is False, and outputs are equal to {worst:.2g}: set it to True"
