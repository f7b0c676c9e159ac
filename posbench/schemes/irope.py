"""iRoPE: layers that turn within chunks, and every few layers one that sees everything and does not turn.

Meta, 2025: https://ai.meta.com/blog/llama-4-multimodal-intelligence/. As Llama 4 in Hugging Face's transformers: the
layers without rotation sharpen slowly with the position. Chunk and step of the sharpening are both the
training length there (8192) and by default here. Without its normalisation of turned queries and keys. A
model of fewer than `no_rope_layer_interval` layers has its last one see everything.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.compose import Layered, every_nth, tokens_within_train_len
from posbench.position.geometry import Mask
from posbench.position.masks import SameChunk, and_masks
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme


@register("scheme/irope")
class IRoPE(Layered):
    """Each n-th layer: (1 + s ln(1 + floor((i + 1) / floor_scale))) q_i . k_j / sqrt(D); others: another scheme within a chunk."""

    def __init__(
        self,
        shape: ModelShape,
        base_scheme: Mapping[str, Any],
        no_rope_layer_interval: int = 4,
        attention_chunk_size: int | None = None,
        floor_scale: int | None = None,
        attn_scale: float = 0.1,
    ) -> None:
        super().__init__(
            shape, [base_scheme, PositionScheme()], every_nth(shape.n_layers, no_rope_layer_interval)
        )
        if attn_scale < 0 or (floor_scale is not None and floor_scale < 1):
            raise ConfigError(
                f"irope floor_scale {floor_scale}, attn_scale {attn_scale}: give a floor_scale of at least 1 token and an attn_scale of at least 0 "
                "(0.1 in Llama 4)"
            )
        self.attention_chunk_size = tokens_within_train_len(
            shape, "irope attention_chunk_size", attention_chunk_size, shape.train_len
        )
        self.floor_scale, self.attn_scale = (
            shape.train_len if floor_scale is None else floor_scale,
            attn_scale,
        )

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        inner = super().mask(inputs)
        if self.is_global(inputs) or inputs.geo.n_read <= self.attention_chunk_size:
            return inner
        return and_masks(inner, SameChunk(self.attention_chunk_size))

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        if not self.is_global(inputs):
            return super().logit_scale(inputs)
        steps_T = (inputs.geo.q_index_T + 1) // self.floor_scale
        return 1 + self.attn_scale * steps_T.double().log1p()

    def is_global(self, inputs: AttentionInputs) -> bool:
        """Whether the layer sees everything."""
        return self.layers[inputs.layer] == 1
