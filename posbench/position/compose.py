"""Schemes made of schemes: several on one layer, or a different one by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import mul
from typing import Any

from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError
from posbench.instantiate import build
from posbench.position.biases import PairValue, Term, add
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import Nearest, both
from posbench.position.scheme import PositionScheme, Shape, Site, Traits


class Stack(PositionScheme):
    """Several schemes on every layer: embeddings and rotations in order, terms add, gains multiply, masks AND.

    At most one member may split the pairs into regions, add to the values, own the denominator or replace
    attention.
    """

    def __init__(self, shape: Shape, schemes: Sequence[Mapping[str, Any] | PositionScheme]) -> None:
        super().__init__()
        members = [
            scheme if isinstance(scheme, PositionScheme) else build(scheme, shape) for scheme in schemes
        ]
        self.members = nn.ModuleList(members)
        self.version = sum(member.version for member in members)
        self.traits = Traits(
            relative=all(member.traits.relative for member in members),
            prefix_stable=all(member.traits.prefix_stable for member in members),
            shared_prefill=all(member.traits.shared_prefill for member in members),
            pairs=all(member.traits.pairs for member in members),
            far_keys=all(member.traits.far_keys for member in members),
            mergeable=all(member.traits.mergeable for member in members),
            apart=all(member.traits.apart for member in members),
            capabilities=frozenset().union(*(member.traits.capabilities for member in members)),
        )

    def _each(self) -> list[PositionScheme]:
        return list(self.members)  # type: ignore[arg-type]

    def _only(self, hook: str, site: Site) -> Any:
        parts = [getattr(member, hook)(site) for member in self._each()]
        found = [part for part in parts if part is not None]
        if len(found) > 1:
            raise IncompatibleError(f"{len(found)} stacked schemes have a {hook}: stack at most one that has")
        return found[0] if found else None

    def check(self, length: int) -> None:
        for member in self._each():
            member.check(length)

    def place(self, geo: Geometry) -> Geometry:
        return reduce(lambda placed, member: member.place(placed), self._each(), geo)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return reduce(lambda x, member: member.embed(x, geo, layer), self._each(), x_BTW)

    def regions(self, site: Site) -> list[Region]:
        # No := in these comprehensions, which torch.compile cannot read.
        split = [regions for regions in (member.regions(site) for member in self._each()) if len(regions) > 1]
        if len(split) > 1:
            raise IncompatibleError(
                "two stacked schemes split the pairs into regions: stack at most one that does"
            )
        return split[0] if split else [Region(site.geo)]

    def mask(self, site: Site) -> Mask | None:
        return both(*(member.mask(site) for member in self._each()))

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        for member in self._each():
            q, k = member.qk(site)
            site = replace(site, q_BHTD=q, k_BHSD=k)
        return site.q_BHTD, site.k_BHSD

    def gain(self, site: Site) -> Tensor | None:
        gains = [gain for gain in (member.gain(site) for member in self._each()) if gain is not None]
        return reduce(mul, gains) if gains else None

    def term(self, site: Site) -> Term | None:
        return add(member.term(site) for member in self._each())

    def value(self, site: Site) -> PairValue | None:
        return self._only("value", site)

    def denominator(self, site: Site) -> Callable[[Tensor], Tensor] | None:
        return self._only("denominator", site)

    def attention(self, site: Site, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        outs = (member.attention(site, v_BHSD, kernel) for member in self._each())
        replaced = [out for out in outs if out is not None]
        if replaced and len(self.members) > 1:
            raise IncompatibleError("a scheme that replaces attention cannot be stacked: use it alone")
        return replaced[0] if replaced else None


class Layered(PositionScheme):
    """A different scheme by layer: layer n uses the scheme at layers[n], or at n modulo their number.

    Embeddings before the first block belong to the scheme of layer 0. Members that place tokens elsewhere
    would disagree on one geometry, so at most the first layer's may.
    """

    def __init__(
        self,
        shape: Shape,
        schemes: Sequence[Mapping[str, Any] | PositionScheme],
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        stacked = Stack(shape, schemes)
        count = len(stacked.members)
        if layers is not None and (len(layers) != shape.layers or not set(layers) <= set(range(count))):
            raise ConfigError(
                f"layers {list(layers)} of a layered scheme: give each of the {shape.layers} layers a number "
                f"from 0 to {count - 1}"
            )
        self.members = stacked.members
        self.layers = list(range(count) if layers is None else layers)
        self.version = stacked.version
        self.traits = replace(
            stacked.traits, far_keys=any(member.traits.far_keys for member in stacked._each())
        )

    def _at(self, layer: int) -> PositionScheme:
        return self.members[self.layers[layer % len(self.layers)]]  # type: ignore[return-value]

    def check(self, length: int) -> None:
        for member in self.members:
            member.check(length)  # type: ignore[operator]

    def place(self, geo: Geometry) -> Geometry:
        return self._at(0).place(geo)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return self._at(layer).embed(x_BTW, geo, layer)

    def regions(self, site: Site) -> list[Region]:
        return self._at(site.layer).regions(site)

    def mask(self, site: Site) -> Mask | None:
        return self._at(site.layer).mask(site)

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        return self._at(site.layer).qk(site)

    def gain(self, site: Site) -> Tensor | None:
        return self._at(site.layer).gain(site)

    def term(self, site: Site) -> Term | None:
        return self._at(site.layer).term(site)

    def value(self, site: Site) -> PairValue | None:
        return self._at(site.layer).value(site)

    def denominator(self, site: Site) -> Callable[[Tensor], Tensor] | None:
        return self._at(site.layer).denominator(site)

    def attention(self, site: Site, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        return self._at(site.layer).attention(site, v_BHSD, kernel)


def every_nth(layers: int, n: int) -> list[int]:
    """1 at every n-th layer and 0 elsewhere; the last layer alone where there are fewer than n."""
    if n < 2 or layers < 2:
        raise ConfigError(
            f"every {n} of {layers} layers: give every at least 2, in a model of at least 2 layers"
        )
    step = min(n, layers)
    return [int((layer + 1) % step == 0) for layer in range(layers)]


def span(shape: Shape, setting: str, given: int | None, default: int) -> int:
    """A number of tokens within the training length, which hides what it is there to hide."""
    tokens = default if given is None else given
    if not 1 <= tokens <= shape.train_len:
        raise ConfigError(
            f"{setting} {tokens}: give at least 1 token and at most the training length, {shape.train_len}"
        )
    return tokens


def nearest(tokens: int, site: Site) -> Mask | None:
    """The window of the nearest `tokens` keys, the token itself among them; None where it hides nothing."""
    # The fastest kernels take no mask.
    return None if site.geo.reach <= tokens else Nearest(tokens)
