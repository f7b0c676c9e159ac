"""Compositions of schemes: several on every layer, or a different one for each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError
from posbench.instantiate import instantiate, register
from posbench.position.biases import AttentionBias, RelativeValues, add
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.masks import and_masks
from posbench.position.scheme import PAIR_HOOKS, AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/stack")
class Stack(PositionScheme):
    """Several schemes on every layer.

    Embeddings, queries, keys and outputs pass through the members in order; biases are added, logit scales multiplied and
    masks combined with AND. At most one member may split the pairs into regions, add to the values, change the
    softmax normalizer or replace attention.

    Args:
        schemes: the members, or the settings that build them.

    Raises:
        ConfigError: if a member replaces attention and a subclass has hooks of softmax attention, which it would
            ignore.
        IncompatibleError: in a forward pass, if two members do what only one may do.
    """

    def __init__(self, shape: ModelShape, schemes: Sequence[Mapping[str, Any] | PositionScheme]) -> None:
        super().__init__()
        members = [
            scheme if isinstance(scheme, PositionScheme) else instantiate(scheme, PositionScheme, shape)
            for scheme in schemes
        ]
        self.members = nn.ModuleList(members)
        self.version = type(self).version - 1 + sum(member.version for member in members)
        self.traits = Traits(
            relative=all(member.traits.relative for member in members),
            prefix_stable=all(member.traits.prefix_stable for member in members),
            shared_prefill=all(member.traits.shared_prefill for member in members),
            softmax_attention=all(member.traits.softmax_attention for member in members),
            scalable_logits=all(member.traits.scalable_logits for member in members),
            unbounded_context=all(member.traits.unbounded_context for member in members),
            lse_mergeable=all(member.traits.lse_mergeable for member in members),
            pairwise=all(member.traits.pairwise for member in members),
            draws_positions=any(member.traits.draws_positions for member in members),
            reads_hidden_states=any(member.traits.reads_hidden_states for member in members),
            capabilities=frozenset().union(*(member.traits.capabilities for member in members)),
        )
        if not self.traits.softmax_attention:
            hooks = (*PAIR_HOOKS, "attention")
            own = [hook for hook in hooks if getattr(type(self), hook) is not getattr(Stack, hook)]
            refuse_hooks(own, type(self), members)

    def _members(self) -> list[PositionScheme]:
        return list(self.members)  # type: ignore[arg-type]

    def _single(self, hook: str, inputs: AttentionInputs) -> Any:
        """Returns what a hook of the one member that has it returns, or None."""
        parts = [getattr(member, hook)(inputs) for member in self._members()]
        found = [part for part in parts if part is not None]
        if len(found) > 1:
            raise IncompatibleError(
                f"{len(found)} stacked schemes define {hook}: stack at most one that does"
            )
        return found[0] if found else None

    def check(self, length: int) -> None:
        for member in self._members():
            member.check(length)

    def assign_positions(self, geo: Geometry) -> Geometry:
        return reduce(lambda geo, member: member.assign_positions(geo), self._members(), geo)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return reduce(lambda x, member: member.embed(x, geo, layer), self._members(), x_BTW)

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        # torch.compile does not support := in comprehensions.
        split = [
            regions
            for regions in (member.regions(inputs) for member in self._members())
            if len(regions) > 1 or regions[0].geo is not inputs.geo or regions[0].mask is not None
        ]
        if len(split) > 1:
            raise IncompatibleError(
                "two stacked schemes split the pairs into regions: stack at most one that does"
            )
        return split[0] if split else [Region(inputs.geo)]

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        return and_masks(*(member.mask(inputs) for member in self._members()))

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        for member in self._members():
            q, k = member.qk(inputs)
            inputs = replace(inputs, q_BHTD=q, k_BHSD=k)
        return inputs.q_BHTD, inputs.k_BHSD

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        logit_scales = [
            logit_scale
            for logit_scale in (member.logit_scale(inputs) for member in self._members())
            if logit_scale is not None
        ]
        return reduce(mul, logit_scales) if logit_scales else None

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        return add(member.attention_bias(inputs) for member in self._members())

    def relative_values(self, inputs: AttentionInputs) -> RelativeValues | None:
        return self._single("relative_values", inputs)

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        members = self._members()
        return reduce(lambda out, member: member.attention_output(out, x_BTW, layer), members, out_BHTD)

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        return self._single("softmax_normalizer", inputs)

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        outs = (member.attention(inputs, v_BHSD, kernel) for member in self._members())
        replaced = [out for out in outs if out is not None]
        if replaced and len(self.members) > 1:
            raise IncompatibleError("a scheme that replaces attention cannot be stacked: use it alone")
        return replaced[0] if replaced else None


def refuse_hooks(hooks: Sequence[str], owner: type, members: Sequence[PositionScheme]) -> None:
    """Raises ConfigError if a scheme around members that replace softmax attention has hooks that it would ignore."""
    if hooks:
        name = next(type(member).__name__ for member in members if not member.traits.softmax_attention)
        raise ConfigError(
            f"{owner.__name__} around {name}: {name} replaces softmax attention, which would ignore {' and '.join(hooks)} "
            f"of {owner.__name__}; choose a base scheme with softmax attention"
        )


def refuse_full_rows(bias: AttentionBias | None, owner: Stack) -> None:
    """Raises IncompatibleError if the bias of the base scheme needs whole rows of logits.

    Called by schemes that compute with the logits of single pairs of their base.
    """
    if bias is not None and bias.needs_full_rows:
        name, base = type(owner).__name__, type(owner.members[0]).__name__
        raise IncompatibleError(
            f"{name} around {base}: {base} computes its logits from whole rows, and {name} needs them for each pair; "
            "choose another base scheme"
        )


@register("scheme/layered")
class Layered(PositionScheme):
    """A different scheme for each layer.

    The scheme of layer 0 assigns the positions of all layers and embeds before the first block; a scheme that stands
    only in later layers can do neither.

    Args:
        schemes: the members, or the settings that build them.
        layers: index of the member that each layer uses; by default layer n uses member n modulo their number.

    Raises:
        ConfigError: if `layers` does not name a member for every layer and every member, or a member would be
            ignored: it assigns positions or embeds tokens before the first block, and does not stand in layer 0.
    """

    def __init__(
        self,
        shape: ModelShape,
        schemes: Sequence[Mapping[str, Any] | PositionScheme],
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        stacked = Stack(shape, schemes)
        count = len(stacked.members)
        if layers is not None and (len(layers) != shape.n_layers or not set(layers) <= set(range(count))):
            raise ConfigError(
                f"layers {list(layers)} of a layered scheme: give each of the {shape.n_layers} layers a number "
                f"from 0 to {count - 1}"
            )
        if layers is not None and set(layers) != set(range(count)):
            raise ConfigError(
                f"layers {list(layers)} of a layered scheme: give each of its {count} schemes a layer, or remove it"
            )
        self.members = stacked.members
        self.layers = list(range(count) if layers is None else layers)
        self.version = type(self).version - 1 + stacked.version
        self.traits = replace(
            stacked.traits,
            unbounded_context=any(member.traits.unbounded_context for member in stacked._members()),
        )
        self._refuse_ignored(shape)

    @torch.no_grad()
    def _refuse_ignored(self, shape: ModelShape) -> None:
        """Raises ConfigError if a member that does not stand in layer 0 does what only the one of layer 0 can do."""
        geo = Geometry.from_range(0, min(2, shape.train_len))
        x_BTW = torch.ones(1, len(geo.q_index_T), shape.d_model)

        def embeds(member: PositionScheme, layer: int) -> bool:
            return not torch.equal(member.embed(x_BTW, geo, layer), x_BTW)

        for first in range(1, shape.n_layers):
            member = self._at(first)
            own = [layer for layer in range(shape.n_layers) if self._at(layer) is member]
            if own[0] != first:
                continue
            with torch.random.fork_rng(devices=[]):
                moves = member.assign_positions(geo) is not geo
                unread = embeds(member, 0) and not any(embeds(member, layer) for layer in own)
            if moves or unread:
                what = "assigns positions" if moves else "embeds tokens before the first block"
                raise ConfigError(
                    f"layered scheme: {type(member).__name__} {what}, which only the scheme of layer 0 can, and stands "
                    f"in layer {first} first: give it layer 0, or apply it to all layers by a stack"
                )

    def _at(self, layer: int) -> PositionScheme:
        return self.members[self.layers[layer % len(self.layers)]]  # type: ignore[return-value]

    def check(self, length: int) -> None:
        for member in self.members:
            member.check(length)  # type: ignore[operator]

    def assign_positions(self, geo: Geometry) -> Geometry:
        return self._at(0).assign_positions(geo)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return self._at(layer).embed(x_BTW, geo, layer)

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        return self._at(inputs.layer).regions(inputs)

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        return self._at(inputs.layer).mask(inputs)

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return self._at(inputs.layer).qk(inputs)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self._at(inputs.layer).logit_scale(inputs)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        return self._at(inputs.layer).attention_bias(inputs)

    def relative_values(self, inputs: AttentionInputs) -> RelativeValues | None:
        return self._at(inputs.layer).relative_values(inputs)

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        return self._at(layer).attention_output(out_BHTD, x_BTW, layer)

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        return self._at(inputs.layer).softmax_normalizer(inputs)

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        return self._at(inputs.layer).attention(inputs, v_BHSD, kernel)
