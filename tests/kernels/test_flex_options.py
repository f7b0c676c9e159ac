"""FlexAttention's tiles fit shared memory: by arithmetic here, by running on a GPU in `make gpu-check`."""

import pytest
import torch

from posbench.kernels.flex_options import kernel_options, tile_sizes

HOPPER = 227 * 1024  # bytes of shared memory per block
GATHER_BYTES = 4  # per pair and gather: biases are float32


@pytest.mark.parametrize("lookups", [1, 2, 3, 5])
@pytest.mark.parametrize("head_dim", [16, 64, 128, 256])
def test_gathers_fit_beside_keys_and_values(head_dim: int, lookups: int) -> None:
    chosen = tile_sizes(torch.bfloat16, head_dim, lookups)
    assert chosen is not None
    keys, stages, queries = chosen["fwd_BLOCK_N"], chosen["fwd_num_stages"], 128 if head_dim <= 128 else 64
    stage_bytes = keys * (2 * head_dim * 2 + queries * lookups * GATHER_BYTES)
    assert stages * stage_bytes + queries * head_dim * 2 <= HOPPER
    assert chosen["bwd_num_stages"] >= 1


def test_pipelines_are_as_long_as_they_can_be() -> None:
    """Fault: one stage with more keys, which fits as well and waits for memory, passed unnoticed."""
    assert tile_sizes(torch.bfloat16, 64, 1) == {"fwd_BLOCK_N": 64, "fwd_num_stages": 2, "bwd_num_stages": 3}
    assert tile_sizes(torch.bfloat16, 64, 5) == {"fwd_BLOCK_N": 64, "fwd_num_stages": 1, "bwd_num_stages": 1}


def test_defaults_without_gathers_and_in_float32() -> None:
    assert tile_sizes(torch.bfloat16, 64, 0) is None
    assert tile_sizes(torch.float32, 64, 1) is None


def test_cpu_has_no_options() -> None:
    q = torch.empty(1, 1, 1, 64)
    assert kernel_options(q.bfloat16(), 1) is None
