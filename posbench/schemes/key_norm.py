"""KeyNorm: keys of length one, so that a query decides its temperature and no key stands out by its length.

Su, 2023: https://kexue.fm/archives/9859.
The norm takes the place of 1/sqrt(D): a key as drawn has a length near sqrt(D). It normalises the keys of
another scheme, before that scheme's own rotation.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from posbench.instantiate import register
from posbench.position.compose import Stack
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/key_norm")
class KeyNorm(Stack):
    """logit(i, j) = q_i . k_j / |k_j|."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any]) -> None:
        super().__init__(shape, [base_scheme])

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        k = inputs.k_BHSD
        # The kernels divide by sqrt(D) again.
        unit = F.normalize(k.float() if k.dtype.itemsize < 4 else k, dim=-1) * math.sqrt(k.shape[-1])
        return super().qk(replace(inputs, k_BHSD=unit.to(k.dtype)))
