"""FlexAttention's tiles fit a multiprocessor: by arithmetic here, by running on a GPU (`make gpu-check`)."""

import pytest
import torch

from posbench.kernels.flex_options import kernel_options, tile_sizes

HOPPER = 227 * 1024  # bytes of shared memory that a block may ask for
LOOKED_UP = 4  # bytes a pair and lookup: terms are float32


@pytest.mark.parametrize("lookups", [1, 2, 3, 5])
@pytest.mark.parametrize("dims", [16, 64, 128, 256])
def test_what_is_looked_up_fits_beside_keys_and_values(dims: int, lookups: int) -> None:
    chosen = tile_sizes(torch.bfloat16, dims, lookups)
    assert chosen is not None
    keys, stages, queries = chosen["fwd_BLOCK_N"], chosen["fwd_num_stages"], 128 if dims <= 128 else 64
    ahead = keys * (2 * dims * 2 + queries * lookups * LOOKED_UP)
    assert stages * ahead + queries * dims * 2 <= HOPPER or stages == 1
    assert chosen["bwd_num_stages"] >= 1


def test_torch_has_its_own_where_nothing_is_looked_up_or_in_float32() -> None:
    assert tile_sizes(torch.bfloat16, 64, 0) is None
    assert tile_sizes(torch.float32, 64, 1) is None


def test_autocast_decides_and_the_cpu_has_no_tiles() -> None:
    q = torch.empty(1, 1, 1, 64)
    assert kernel_options(q.bfloat16(), 1) is None
