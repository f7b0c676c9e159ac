"""An extension on some layers only, such as the YaRN of OLMo 3, which scales its full-attention layers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posbench.errors import ConfigError, IncompatibleError
from posbench.instantiate import instantiate, register
from posbench.position.biases import AttentionBias, RelativeValues
from posbench.position.call import Kernel
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Mask, Region
from posbench.position.scheme import AttentionInputs, PositionScheme

KINDS = ("full", "windowed")


@register("extension/on_layers")
class OnLayers(Extension):
    """`extension` on some layers of a scheme; the other layers stay as they are.

    Args:
        extension: the settings that build the extension.
        layers: "full", the layers whose scheme masks no earlier token; "windowed", the others; or a list of
            indices from 0.

    Raises:
        ConfigError: if `layers` is none of these.
        IncompatibleError: if the scheme has no such layer.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        extension: Mapping[str, Any],
        layers: str | Sequence[int],
    ) -> None:
        super().__init__(inner, context)
        self.layers = select_layers(inner, context, layers)
        self.extended = instantiate(extension, Extension, inner, context)
        self.version = type(self).version - 1 + self.extended.version
        self.moves_positions = type(self.extended).assign_positions is not Extension.assign_positions
        both = inner.traits, self.extended.traits
        flags: dict[str, Any] = {
            name: all(getattr(traits, name) for traits in both)
            for name in ("relative", "prefix_stable", "shared_prefill", "lse_mergeable", "pairwise")
        }
        self.traits = replace(inner.traits, **flags)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"layers": []}

    def _at(self, layer: int) -> PositionScheme:
        return self.extended if layer in self.layers else self.inner

    def _moved(self, geo: Geometry, layer: int) -> Geometry:
        """Returns the geometry with the positions of a layer; those of unextended layers are in `geo`."""
        if not self.moves_positions or layer not in self.layers:
            return geo

        def move() -> Geometry:
            offset = None
            if geo.first_query is not None and geo.first_key is not None:
                offset = geo.first_query - geo.first_key
            return self.extended.assign_positions(geo.with_positions(geo.q_index_T, geo.k_index_S, offset))

        return geo.memo((self, "moved"), move)

    def _inputs(self, inputs: AttentionInputs) -> AttentionInputs:
        geo = self._moved(inputs.geo, inputs.layer)
        return inputs if geo is inputs.geo else replace(inputs, geo=geo)

    def check(self, length: int) -> None:
        self.inner.check(length)
        self.extended.check(length)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return self._at(layer).embed(x_BTW, self._moved(geo, layer), layer)

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        # Geometries of regions have the positions of the layer; the hooks called on them must not move these again.
        return self._at(inputs.layer).regions(self._inputs(inputs))

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

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        return self._at(inputs.layer).softmax_normalizer(inputs)

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        return self._at(layer).attention_output(out_BHTD, x_BTW, layer)

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        return self._at(inputs.layer).attention(self._inputs(inputs), v_BHSD, kernel)


OnLayers.requires = frozenset()  # its hooks only delegate; `extension` has requirements of its own


@register("extension/chain")
class Chain(Extension):
    """Several extensions, each around the one before, such as those of different layers.

    Args:
        extensions: the settings that build them, the innermost first.
        train_len: training length in tokens that they scale from; null is that of the model.
    """

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        extensions: Sequence[Mapping[str, Any]],
        train_len: int | None = None,
    ) -> None:
        if train_len is not None:
            context = replace(context, shape=replace(context.shape, train_len=train_len))
        for settings in extensions:
            inner = instantiate(settings, Extension, inner, context)
        super().__init__(inner, context)
        self.version = type(self).version - 1 + inner.version

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"extensions": []}


def select_layers(
    scheme: PositionScheme, context: ExtensionContext, layers: str | Sequence[int]
) -> frozenset[int]:
    """Returns the indices of the layers that `layers` of OnLayers names."""
    count = context.shape.n_layers
    if isinstance(layers, str):
        chosen = {
            layer for layer in range(count) if is_windowed(scheme, context, layer) == (layers == "windowed")
        }
        if not chosen:
            raise IncompatibleError(
                f"extension.layers {layers}: {type(scheme).__name__} has no {layers} layer; give all or a list of indices"
            )
        return frozenset(chosen)
    if len(set(layers)) < len(layers) or not all(0 <= layer < count for layer in layers):
        raise ConfigError(
            f"extension.layers {list(layers)}: give distinct indices from 0 to {count - 1}, all, {' or '.join(KINDS)}"
        )
    return frozenset(layers)


def is_windowed(scheme: PositionScheme, context: ExtensionContext, layer: int) -> bool:
    """Returns whether the scheme masks earlier tokens in a layer, for the last token of a text past the training length."""
    shape, tokens = context.shape, max(context.length, 4 * context.shape.train_len)
    like = next(scheme.parameters(), torch.empty(0))
    geo = Geometry.from_range(tokens - 1, tokens, device=like.device)  # masks use indices alone
    q_BHTD = like.new_zeros(1, shape.n_heads, 1, shape.head_dim)
    k_BHSD = q_BHTD.expand(-1, -1, tokens, -1)
    x_BSW = like.new_zeros(1, 1, shape.d_model).expand(-1, tokens, -1)
    return scheme.mask(AttentionInputs(layer, geo, x_BSW[:, -1:], x_BSW, q_BHTD, k_BHSD)) is not None
