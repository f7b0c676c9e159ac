"""The interface of attention kernels: one region of one attention layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from posbench.position.biases import AttentionBias, RelativeValues
from posbench.position.geometry import Geometry, Mask


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """The arguments of a kernel.

    Attributes:
        q_BHTE, k_BHSE: queries, already multiplied by `logit_scale`, and keys.
        v_BHSD: values. The batch size of keys and values may be 1, shared by all sequences of queries.
        scale: factor on q . k.
        geo: geometry of the region. Key j is visible to query i only if its index is at most that of i.
        masks: further conditions for a visible pair, combined with AND.
        bias: added to the scaled logits.
        relative_values: added to the values by pair.
        with_lse: whether the kernel also returns the log-sum-exp of the visible logits.
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
    """Maps an AttentionCall to the (B, H, T, D) output and the (B, H, T) log-sum-exp.

    The log-sum-exp may be None without `with_lse`; then every query must have a visible key. With it, a query without a
    key gets an output of zeros and a log-sum-exp of -inf.
    """

    def __call__(self, call: AttentionCall) -> tuple[Tensor, Tensor | None]: ...
