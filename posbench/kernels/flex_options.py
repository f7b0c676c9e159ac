"""Tile sizes of FlexAttention's kernels, padding to their minimum sizes, and captured tensors.

torch's own tile sizes are tuned for kernels without gathers in `score_mod`. A tensor that the inner loop gathers
from passes through shared memory as keys and values do: one number per pair of the tile and pipeline stage. At head
dimension 64 in bfloat16, torch's tiles of 128 x 128 with three stages need 240 KiB of the 227 KiB that a Hopper GPU
has, and the kernel does not launch. With 64 keys per tile it fits, without register spilling (`ptxas` for sm_90;
torch's sizes spill 2 KB per thread).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Queries and keys per block of a BlockMask.
BLOCK = 128
# Smallest head dimension of a matrix product on a GPU.
MIN_HEAD_DIM = 16


def kernel_options(q_BHTE: Tensor, lookups: int) -> dict[str, int] | None:
    """Returns the `kernel_options` of torch's flex_attention, or None for its defaults.

    Args:
        lookups: gathers per pair in `score_mod`.
    """
    device = q_BHTE.device.type
    # Autocast casts inside the call.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else q_BHTE.dtype
    return tile_sizes(dtype, q_BHTE.shape[-1], lookups) if device == "cuda" else None


def tile_sizes(dtype: torch.dtype, head_dim: int, lookups: int) -> dict[str, int] | None:
    """Returns the options for a dtype and head dimension; None in float32, where torch's own tiles are small enough."""
    if not lookups or dtype == torch.float32:
        return None
    stages = max(1, 4 - lookups - (head_dim > 64))
    return {"fwd_BLOCK_N": 64, "fwd_num_stages": min(2, stages), "bwd_num_stages": stages}


def padded_length(length: int) -> int:
    """Returns the padded length in tokens: a power of two, at least one block."""
    return max(BLOCK, 1 << (length - 1).bit_length())


def pad_tokens(x_BHTD: Tensor, length: int) -> Tensor:
    """Pads with zeros to `length` tokens and at least MIN_HEAD_DIM dimensions."""
    dims, tokens = max(0, MIN_HEAD_DIM - x_BHTD.shape[-1]), length - x_BHTD.shape[2]
    return F.pad(x_BHTD, (0, dims, 0, tokens)) if dims or tokens else x_BHTD  # F.pad always copies


def materialize(x: Tensor) -> Tensor:
    """Returns `x` in memory, for capture by a `score_mod`.

    Where a whole model is compiled, Inductor would inline the computation of `x` into the kernel, per pair, and
    fail. It allocates memory for the input of as_strided.
    """
    return x.as_strided(x.shape, x.stride()) if torch.compiler.is_compiling() else x
