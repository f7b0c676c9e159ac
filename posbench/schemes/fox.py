"""Forgetting attention (FoX): every token multiplies by a gate what all tokens before it count for.

Lin et al. Forgetting Transformer: Softmax Attention with a Forget Gate. ICLR 2025, section 3. arXiv:2503.02130.
The attention alone, the paper's "FoX (LLaMA)": output gate, norms of queries and keys and token shift of its
"Pro" block belong to the block. One gate a head and layer from the normalised input. As in the authors' code
its weights start at standard deviation 0.02 and its bias at 0, so that a token counts for half after one more:
short trainings never reach back from there. `decay_times` starts the biases of the heads where that code has
those of its gates without content, at memories between two numbers of tokens, even on a logarithmic scale.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, SeparableBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/fox")
class FoX(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + sum over l = j+1 .. i of log sigmoid(w_h . x_l + b_h)."""

    traits = Traits(relative=True, pairwise=False, reads_hidden_states=True)

    def __init__(self, shape: ModelShape, decay_times: list | None = None) -> None:
        super().__init__()
        self.weight_LHW = nn.Parameter(0.02 * torch.randn(shape.n_layers, shape.n_heads, shape.d_model))
        bias_H = torch.zeros(shape.n_heads) if decay_times is None else biases(decay_times, shape.n_heads)
        self.bias_LH = nn.Parameter(bias_H.repeat(shape.n_layers, 1))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        assert inputs.x_BSW is not None
        gate_BSH = F.linear(inputs.x_BSW, self.weight_LHW[inputs.layer], self.bias_LH[inputs.layer])
        kept_BHS = kept(F.logsigmoid(gate_BSH.double()))
        return SeparableBias(kept_BHS[..., -inputs.q_BHTD.shape[2] :], -kept_BHS)


def kept(log_BSH: Tensor) -> Tensor:
    """(B, H, S) nats, float64: the sum up to each token; the difference of two is what is kept in between."""
    return log_BSH.cumsum(1).transpose(1, 2)


def biases(decay_times: list, heads: int) -> Tensor:
    """(H,) with -1 / log sigmoid(bias) from the first time to the last."""
    numbers = all(isinstance(time, int | float) and 0 < time < math.inf for time in decay_times)
    if len(decay_times) != 2 or not numbers or decay_times[0] > decay_times[1]:
        raise ConfigError(
            f"fox decay_times {decay_times}: give two numbers of tokens above 0, the lesser first, or null"
        )
    shortest, longest = (math.log(time) for time in decay_times)
    return -torch.linspace(shortest, longest, heads).neg().exp().expm1().log()
