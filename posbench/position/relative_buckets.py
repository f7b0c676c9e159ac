"""Logarithmic buckets of distances with one trained bias each, as in T5.

Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer. JMLR 2020,
section 2.1. arXiv:1910.10683.
"""

import math

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.position.biases import floor_distance
from posbench.position.scheme import ModelShape


def check_buckets(scheme: str, num_buckets: int, max_distance: int) -> None:
    """Raises ConfigError where the buckets would not be distinct."""
    if num_buckets < 2 or max_distance <= num_buckets // 2:
        raise ConfigError(
            f"{scheme} with {num_buckets} buckets up to distance {max_distance}: give at least 2 buckets and a "
            "max_distance above half of them (32 and 128 in the paper)"
        )


def init_bucket_bias(shape: ModelShape, num_buckets: int) -> nn.Parameter:
    """Returns a trained bias for each bucket and head, (K, H) nats, drawn at standard deviation d_model^-0.5."""
    return nn.Parameter(torch.randn(num_buckets, shape.n_heads) * shape.d_model**-0.5)


def bucket_bias(bias_KH: Tensor, distance: Tensor, max_distance: int) -> Tensor:
    """Returns the bias of each distance, (H, *distance.shape) nats."""
    return bias_KH[bucket(distance, len(bias_KH), max_distance)].movedim(-1, 0)


def bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Returns the bucket of each distance >= 0, int64 of the same shape.

    The first half of the buckets holds one distance each, the second half grows geometrically, and the last one
    holds all larger distances. A fractional distance is in the bucket of its integer part.
    """
    exact = num_buckets // 2
    near = floor_distance(distance)
    octaves = torch.log(near.clamp(min=exact).double() / exact) / math.log(max_distance / exact)
    far = (exact + octaves * (num_buckets - exact)).long().clamp(max=num_buckets - 1)
    return torch.where(near < exact, near, far)
