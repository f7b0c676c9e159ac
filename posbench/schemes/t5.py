"""T5: a trained bias for each bucket of distances, near distances alone and far ones together.

Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer. JMLR 2020,
section 2.1. arXiv:1910.10683. The causal buckets; one table for all layers.
T5 leaves out the factor 1/sqrt(D); here it stays, as for every scheme. A fractional distance falls in the
bucket of its integer part.
"""

import torch
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.relative_buckets import bucket, check_buckets
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/t5")
class T5Bias(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + bias[bucket(i - j), h]."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        check_buckets("t5", num_buckets, max_distance)
        self.max_distance = max_distance
        self.bias_KH = nn.Parameter(torch.randn(num_buckets, shape.n_heads) * shape.d_model**-0.5)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.bias)

    def bias(self, distance: Tensor) -> Tensor:
        """(H, *shape of distance) nats."""
        return self.bias_KH[bucket(distance, len(self.bias_KH), self.max_distance)].movedim(-1, 0)
