"""Learned sink: a trained logit for each head that joins the softmax and has no value.

OpenAI. gpt-oss-120b & gpt-oss-20b Model Card. 2025. arXiv:2508.10925. One logit for each layer and head, drawn at
standard deviation 0.02 as in transformers. With logits of 0 it is softmax-one. It changes the softmax normalizer of
another scheme.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.compose import Stack
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/learned_sink")
class LearnedSink(Stack):
    """output_i = sum_j exp(logit_ij) v_j / (exp(sink_lh) + sum_j exp(logit_ij)), with the logits of `base_scheme`."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any]) -> None:
        super().__init__(shape, [base_scheme])
        self.sink_LH = nn.Parameter(0.02 * torch.randn(shape.n_layers, shape.n_heads))

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor]:
        inner = super().softmax_normalizer(inputs)
        sink_H1 = self.sink_LH[inputs.layer][:, None]

        def with_sink(lse_BHT: Tensor) -> Tensor:
            outer = lse_BHT if inner is None else inner(lse_BHT)
            return torch.logaddexp(outer, sink_H1.to(outer.dtype))

        return with_sink
