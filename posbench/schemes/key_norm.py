"""KeyNorm: keys of unit length, so that the query alone sets the temperature of its softmax.

Su, 2023: https://kexue.fm/archives/9859.
The norm replaces the factor 1/sqrt(D): a key at initialization has a norm near sqrt(D). It normalizes the keys of
another scheme before that scheme rotates them.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from posbench.instantiate import register
from posbench.position.biases import upcast
from posbench.position.compose import Stack
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/key_norm")
class KeyNorm(Stack):
    """logit(i, j) = q_i . k_j / |k_j|, with the queries and keys of `base_scheme`."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any]) -> None:
        super().__init__(shape, [base_scheme])

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        k = inputs.k_BHSD
        # The kernels divide by sqrt(D).
        unit = F.normalize(upcast(k), dim=-1) * math.sqrt(k.shape[-1])
        return super().qk(replace(inputs, k_BHSD=unit.to(k.dtype)))
