"""Logarithmic buckets of distances, shared by the schemes that have one bias for each."""

import math

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.biases import whole


def check_buckets(scheme: str, buckets: int, max_distance: int) -> None:
    """Raise if they cannot be told apart."""
    if buckets < 2 or max_distance <= buckets // 2:
        raise ConfigError(
            f"{scheme} with {buckets} buckets up to distance {max_distance}: give at least 2 buckets and a "
            "max_distance above half of them (32 and 128 in the paper)"
        )


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Half of the buckets hold one distance each, the others grow geometrically; the last holds the rest."""
    exact = buckets // 2
    near = whole(distance)
    octaves = torch.log(near.clamp(min=exact).double() / exact) / math.log(max_distance / exact)
    far = (exact + octaves * (buckets - exact)).long().clamp(max=buckets - 1)
    return torch.where(near < exact, near, far)
