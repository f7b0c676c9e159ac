"""Logarithmic buckets of distances, shared by the schemes that have one bias for each."""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.biases import floor_distance


def check_buckets(scheme: str, num_buckets: int, max_distance: int) -> None:
    """Raise if they cannot be told apart."""
    if num_buckets < 2 or max_distance <= num_buckets // 2:
        raise ConfigError(
            f"{scheme} with {num_buckets} buckets up to distance {max_distance}: give at least 2 buckets and a "
            "max_distance above half of them (32 and 128 in the paper)"
        )


def bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Half of the buckets hold one distance each, the others grow geometrically; the last holds the rest."""
    exact = num_buckets // 2
    near = floor_distance(distance)
    octaves = torch.log(near.clamp(min=exact).double() / exact) / math.log(max_distance / exact)
    far = (exact + octaves * (num_buckets - exact)).long().clamp(max=num_buckets - 1)
    return torch.where(near < exact, near, far)
