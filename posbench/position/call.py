"""What a kernel computes: one region of one attention call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from posbench.position.biases import AttentionBias, RelativeValues
from posbench.position.geometry import Geometry, Mask


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """All that a kernel needs to know of one region.

    Attributes:
        q_BHTE, k_BHSE, v_BHSD: queries (gain applied), keys and values.
        scale: factor on q . k.
        geo: the region's geometry; causality is by its indices.
        masks: what must hold for a pair besides causality.
        bias, relative_values: additive logits and additive values, or None.
        with_lse: whether the log-sum-exp of the visible logits is asked for.
    """

    q_BHTE: Tensor
    k_BHSE: Tensor
    v_BHSD: Tensor
    scale: float
    geo: Geometry
    masks: tuple[Mask, ...] = ()
    bias: AttentionBias | None = None
    relative_values: RelativeValues | None = None
    with_lse: bool = False


class Kernel(Protocol):
    """AttentionCall -> (B, H, T, D) output and, where asked for, (B, H, T) log-sum-exp.

    A query that sees nothing gets zeros and -inf.
    """

    def __call__(self, call: AttentionCall) -> tuple[Tensor, Tensor | None]: ...
