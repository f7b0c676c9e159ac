"""Sandwich: inner products of sinusoidal embeddings as a fixed bias on the distance.

Chi et al. Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis. ACL 2023,
appendix E. arXiv:2212.10356.
Of the products of token and position embeddings only position with position is kept. The compression ratio of head
h, 8h/H, is that of the paper's listing.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.rotary import compute_inv_freq
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/sandwich")
class Sandwich(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + H/(8h) * sum_m cos((i - j) * base^(-2m/dims)), h = 1 .. H, m < dims/2."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, dims: int = 128, base: float = 10000.0) -> None:
        super().__init__()
        if not 2 <= dims <= 4096 or dims % 2:
            raise ConfigError(f"sandwich dims {dims}: give an even number from 2 to 4096 (128 in the paper)")
        self.inv_freq = compute_inv_freq(dims, base, of="sandwich dims", setting="base").tolist()
        self.strength_H = shape.n_heads / (8 * torch.arange(1, shape.n_heads + 1, dtype=torch.float64))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.bias, cache_owner=self)

    def bias(self, distance: Tensor) -> Tensor:
        """Returns the bias of each distance, (H, *distance.shape) float64 nats."""
        exact = distance.double()
        # One frequency at a time: all at once need dims/2 times the memory, too much where each pair has its own distance.
        waves = torch.zeros_like(exact)
        for inv_freq in self.inv_freq:
            waves = waves + torch.cos(exact * inv_freq)
        return torch.tensordot(self.strength_H.to(distance.device), waves, 0)
