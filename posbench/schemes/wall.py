"""Wall attention: every dimension of a head forgets at a rate of its own, computed from each token.

Averbuch, Pai. Wall Attention. Tilde Research, 2026. As in flash-linear-attention (layers/wall_attn.py):
https://github.com/fla-org/flash-linear-attention. Gates start at sigmoid(8), where nearly nothing is forgotten. The
product of gates between two tokens is split at the middle of blocks of 32 queries, so that no factor overflows unless
a dimension forgets more than e^-80 within 16 tokens; the sums are in float64. Because every dimension of a pair has a
factor of its own, logits are computed row by row, on a GPU too. The scalar gate by head is FoX, a scheme to stack.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.content_rotation import project
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

BLOCK, MAX_EXPONENT = 32, 80.0  # queries; nats, exp overflows float32 at 88


@register("scheme/wall")
class Wall(PositionScheme):
    """logit(h, i, j) = sum over d of q_id k_jd exp(P_hid - P_hjd) / sqrt(D), P_i = sum over t <= i of log sigmoid(W x_t + b)."""

    traits = Traits(relative=True, pairwise=False, reads_hidden_states=True)

    def __init__(self, shape: ModelShape, gate_init_bias: float = 8.0) -> None:
        super().__init__()
        if not abs(gate_init_bias) <= 50:
            raise ConfigError(f"wall gate_init_bias {gate_init_bias}: give a number from -50 to 50 (8 there)")
        self.n_heads, gates = shape.n_heads, shape.n_heads * shape.head_dim
        self.weight_LGW = nn.Parameter(0.02 * torch.randn(shape.n_layers, gates, shape.d_model))
        self.bias_LG = nn.Parameter(torch.full((shape.n_layers, gates), gate_init_bias))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        assert inputs.x_BSW is not None
        gate_BSG = project(inputs.x_BSW, self.weight_LGW[inputs.layer], self.bias_LG[inputs.layer])
        sum_BSG = F.logsigmoid(gate_BSG).cumsum(1, dtype=torch.float64)
        sum_BHSD = sum_BSG.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        before = sum_BHSD.shape[2] - inputs.q_BHTD.shape[2]  # keys before the first query

        def bias(rows: QueryRows) -> Tensor:
            first = before + (rows.rows.start or 0)
            logit_BHRS = decayed_logits(rows.scale * rows.q_BHRE, rows.k_BHSE, sum_BHSD, first)
            return logit_BHRS - rows.content_BHRS

        return RowwiseBias(bias, inputs.q_BHTD, inputs.k_BHSD)


def decayed_logits(q_BHRD: Tensor, k_BHSD: Tensor, sum_BHSD: Tensor, first: int) -> Tensor:
    """Returns sum over d of q_id k_jd exp(P_id - P_jd), (B, H, R, S), for the queries first, first + 1, ..."""
    rows, keys, blocks = q_BHRD.shape[2], k_BHSD.shape[2], []
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        seen = min(first + stop, keys)
        middle = sum_BHSD[:, :, (2 * first + start + stop) // 2, None]
        at_q = sum_BHSD[:, :, first + start : first + stop] - middle
        at_k = middle - sum_BHSD[:, :, :seen]
        q = q_BHRD[:, :, start:stop] * at_q.clamp(max=MAX_EXPONENT).to(q_BHRD.dtype).exp()
        k = k_BHSD[:, :, :seen] * at_k.clamp(max=MAX_EXPONENT).to(k_BHSD.dtype).exp()
        blocks.append(F.pad(q @ k.mT, (0, keys - seen)))
    return torch.cat(blocks, 2)
