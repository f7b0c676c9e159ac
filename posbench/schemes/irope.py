"""iRoPE: layers with RoPE within chunks, and every few layers a global one without positions.

Meta, 2025: https://ai.meta.com/blog/llama-4-multimodal-intelligence/. As Llama 4 in transformers: the logits of
global layers grow slowly with the position. Chunk size and the step of that growth are both 8192 there, and the
training length here by default. Without Llama 4's norm of rotated queries and keys. A model of fewer than
`no_rope_layer_interval` layers has one global layer, its last.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.hybrid import LayerHybrid
from posbench.position.local_attention import tokens_within_train_len
from posbench.position.masks import SameChunk
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/irope")
class IRoPE(LayerHybrid):
    """Every n-th layer: (1 + s ln(1 + floor((i + 1) / floor_scale))) q_i . k_j / sqrt(D); the others: `base_scheme` in chunks.

    n is `no_rope_layer_interval` and s is `attn_scale`.
    """

    def __init__(
        self,
        shape: ModelShape,
        base_scheme: Mapping[str, Any],
        no_rope_layer_interval: int = 4,
        attention_chunk_size: int | None = None,
        floor_scale: int | None = None,
        attn_scale: float = 0.1,
    ) -> None:
        super().__init__(shape, base_scheme, no_rope_layer_interval)
        if attn_scale < 0 or (floor_scale is not None and floor_scale < 1):
            raise ConfigError(
                f"irope floor_scale {floor_scale}, attn_scale {attn_scale}: give a floor_scale of at least 1 token and an attn_scale of at least 0 "
                "(0.1 in Llama 4)"
            )
        self.attention_chunk_size = tokens_within_train_len(
            shape, "irope attention_chunk_size", attention_chunk_size, shape.train_len, "all of it"
        )
        self.floor_scale = shape.train_len if floor_scale is None else floor_scale
        self.attn_scale = attn_scale

    def local_mask(self, inputs: AttentionInputs) -> Mask | None:
        # No mask where it hides no key: the fastest kernels take none.
        if inputs.geo.n_read <= self.attention_chunk_size:
            return None
        return SameChunk(self.attention_chunk_size)

    def global_logit_scale(self, inputs: AttentionInputs) -> Tensor:
        steps_T = (inputs.geo.q_index_T + 1) // self.floor_scale
        return 1 + self.attn_scale * steps_T.double().log1p()
