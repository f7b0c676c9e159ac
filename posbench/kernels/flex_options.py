"""How large the tiles of FlexAttention's kernels are, and what is too small for one.

torch's own sizes were measured without a term that is looked up pair by pair. What a kernel's inner loop looks up
passes through shared memory as keys and values do, a number a pair of the tile for each stage: at heads of 64 in
bfloat16 torch's 128 x 128 and three stages ask a Hopper for 240 KiB, which has 227, and nothing runs. 64 keys at a
time fit, and registers hold them (`ptxas` for sm_90: nothing spilled, where torch's spill 2 KB a thread).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Dimensions of a head below which a GPU has no product of tiles.
LEAST = 16


def kernel_options(q_BHTE: Tensor, lookups: int) -> dict[str, int] | None:
    """torch's `kernel_options` for a call whose term is looked up so many times a pair; None for torch's own."""
    device = q_BHTE.device.type
    # Autocast casts inside the call.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else q_BHTE.dtype
    return sizes(dtype, q_BHTE.shape[-1], lookups) if device == "cuda" else None


def sizes(dtype: torch.dtype, dims: int, lookups: int) -> dict[str, int] | None:
    """The same of a precision and a head dimension; in float32 torch's own are small enough."""
    if not lookups or dtype == torch.float32:
        return None
    stages = max(1, 4 - lookups - (dims > 64))
    return {"fwd_BLOCK_N": 64, "fwd_num_stages": min(2, stages), "bwd_num_stages": stages}


def filled(x_BHTD: Tensor, to: int) -> Tensor:
    """Zeros up to a length, and up to the least head dimension."""
    return F.pad(x_BHTD, (0, max(0, LEAST - x_BHTD.shape[-1]), 0, to - x_BHTD.shape[2]))


def held(x: Tensor) -> Tensor:
    """What a score captures, in memory.

    Where a whole model is compiled, Inductor would write what computes it into the kernel, pair by pair, and fails at
    that; as_strided is what it has memory made for.
    """
    return x.as_strided(x.shape, x.stride()) if torch.compiler.is_compiling() else x
