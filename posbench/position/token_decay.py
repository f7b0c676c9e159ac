"""A decay that each token applies to all tokens before it, computed from its content."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.position.biases import AttentionBias, SeparableBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


class TokenDecay(PositionScheme):
    """Adds -sum over l = j+1 .. i of decay(w_h . x_l + b_h) to logit(h, i, j), w_h and b_h for each layer and head.

    The sum is a difference of two prefix sums, so the bias is a part of the query plus a part of the key.
    """

    traits = Traits(relative=True, pairwise=False, reads_hidden_states=True)
    decayed_parameters = ("weight_LHW",)

    def __init__(self, shape: ModelShape, init_bias_H: Tensor) -> None:
        super().__init__()
        self.weight_LHW = nn.Parameter(0.02 * torch.randn(shape.n_layers, shape.n_heads, shape.d_model))
        self.bias_LH = nn.Parameter(init_bias_H.repeat(shape.n_layers, 1))

    def decay(self, gate_BSH: Tensor) -> Tensor:
        """Returns the decay of each token in nats, at least 0; same shape and dtype (float64) as the gates."""
        raise NotImplementedError

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        assert inputs.x_BSW is not None
        gate_BSH = F.linear(inputs.x_BSW, self.weight_LHW[inputs.layer], self.bias_LH[inputs.layer])
        total_BHS = self.decay(gate_BSH.double()).cumsum(1).transpose(1, 2)
        return SeparableBias(-total_BHS[..., -inputs.q_BHTD.shape[2] :], total_BHS)
