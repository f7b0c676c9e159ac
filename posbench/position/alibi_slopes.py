"""The slopes of ALiBi, one for each head.

Press, Smith, Lewis. Train Short, Test Long. ICLR 2022, section 3. arXiv:2108.12409.
"""

import torch
from torch import Tensor


def alibi_slopes(n_heads: int) -> Tensor:
    """Returns the slopes, (H,) float64 nats per token.

    The first P heads, P the largest power of two up to H, have 2^(-8n/P) for n = 1 .. P; the other heads have
    n = 1/2, 3/2, ..., as in the authors' code.
    """
    power = 1 << (n_heads.bit_length() - 1)
    exponents = torch.cat([torch.arange(1, power + 1), torch.arange(n_heads - power) + 0.5])
    return 2.0 ** (-8.0 / power * exponents.double())
