"""SSMax: logits multiplied by a trained factor and the logarithm of the number of visible keys.

Nakanishi. Scalable-Softmax Is Superior for Attention. 2025. arXiv:2501.19399.
One factor s for each layer and head. It starts at 1 / mean(log n) over the training length, where the mean scale is
1 (0.168 for the paper's 1024 tokens). Without the paper's optional bias. It scales the logits of another scheme.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.compose import Stack
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/ssmax")
class SSMax(Stack):
    """logit(h, i, j) = s_lh * log(n) * q_i . k_j / sqrt(D), n = i + 1 the number of keys up to query i."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any]) -> None:
        super().__init__(shape, [base_scheme])
        if shape.train_len < 2:
            raise ConfigError(
                f"ssmax with a training length of {shape.train_len}: train on at least 2 tokens"
            )
        log_N = torch.arange(1, shape.train_len + 1).double().log()
        self.s_LH = nn.Parameter(torch.full((shape.n_layers, shape.n_heads), 1 / float(log_N.mean())))

    def logit_scale(self, inputs: AttentionInputs) -> Tensor:
        own_HT = self.s_LH[inputs.layer].double()[:, None] * (inputs.geo.q_index_T.double() + 1).log()
        inner = super().logit_scale(inputs)
        return own_HT if inner is None else own_HT * inner
