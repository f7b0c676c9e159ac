"""FoX: a forget gate in each token down-weights all tokens before it (forgetting attention).

Lin et al. Forgetting Transformer: Softmax Attention with a Forget Gate. ICLR 2025, section 3. arXiv:2503.02130.
The attention of the paper's "FoX (LLaMA)"; the gate and norm of outputs, the norms of queries and keys and the token
shift of its "Pro" block belong to the block. One gate for each head and layer, computed from the normalized input. As in the
authors' code, its weights start at standard deviation 0.02 and its bias at 0, where each token halves the weight of
those before it. Short trainings do not learn long memories from this start. `decay_times` gives two numbers of tokens,
between which the initial memories of the heads are evenly spaced on a logarithmic scale, as in the authors' code for
gates without content.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.scheme import ModelShape
from posbench.position.token_decay import TokenDecay


@register("scheme/fox")
class FoX(TokenDecay):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + sum over l = j+1 .. i of log sigmoid(w_h . x_l + b_h)."""

    def __init__(self, shape: ModelShape, decay_times: list[float] | None = None) -> None:
        heads = shape.n_heads
        super().__init__(
            shape, torch.zeros(heads) if decay_times is None else gate_biases(decay_times, heads)
        )

    def decay(self, gate_BSH: Tensor) -> Tensor:
        return -F.logsigmoid(gate_BSH)


def gate_biases(decay_times: list, heads: int) -> Tensor:
    """Returns biases (H,) with -1 / log sigmoid(bias) from the first time to the last, in tokens."""
    numbers = all(isinstance(time, int | float) and 0.05 <= time < math.inf for time in decay_times)
    if len(decay_times) != 2 or not numbers or decay_times[0] > decay_times[1]:
        raise ConfigError(
            f"fox decay_times {decay_times}: give two numbers of tokens, at least 0.05 and the lesser first, or null"
        )
    shortest, longest = (math.log(time) for time in decay_times)
    return -torch.linspace(shortest, longest, heads).neg().exp().expm1().log()
