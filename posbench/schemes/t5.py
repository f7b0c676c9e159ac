"""T5: a trained bias for each bucket of distances, exact for near and logarithmic for far ones.

Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer. JMLR 2020,
section 2.1. arXiv:1910.10683. Causal buckets; one table for all layers.
T5 omits the factor 1/sqrt(D); here it stays, as in every scheme. A fractional distance is in the bucket of its
integer part.
"""

from torch import Tensor

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.relative_buckets import bucket_bias, check_buckets, init_bucket_bias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/t5")
class T5Bias(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + bias[bucket(i - j), h]."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        check_buckets("t5", num_buckets, max_distance)
        self.max_distance = max_distance
        self.bias_KH = init_bucket_bias(shape, num_buckets)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.bias)

    def bias(self, distance: Tensor) -> Tensor:
        """Returns the bias of each distance, (H, *distance.shape) nats."""
        return bucket_bias(self.bias_KH, distance, self.max_distance)
