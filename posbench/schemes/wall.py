"""Wall attention: every dimension of a head forgets at a rate of its own, computed from each token.

Averbuch, Pai. Wall Attention. Tilde Research, 2026. As in flash-linear-attention (layers/wall_attn.py):
https://github.com/fla-org/flash-linear-attention. Gates start at sigmoid(8), where nearly nothing is forgotten. The
product of gates between two tokens is split at the ends of blocks of 32 tokens, where every factor is at most 1, and
within a block at its middle, where none overflows unless a dimension forgets more than e^-80 in 16 tokens. Sums over
blocks are in float64. Because every dimension of a pair has a factor of its own, logits are computed row by row, on a
GPU too. The scalar gate by head is FoX, a scheme to stack.
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

    decayed_parameters = ("weight_LGW",)

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
        log_BHSD = F.logsigmoid(gate_BSG).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        padded = F.pad(log_BHSD, (0, 0, 0, -log_BHSD.shape[2] % BLOCK))
        sums = padded.unflatten(2, (-1, BLOCK)).cumsum(3)  # from the start of each block
        ends = sums[:, :, :, -1].cumsum(2, dtype=torch.float64)  # P at the end of each block
        before = inputs.k_BHSD.shape[2] - inputs.q_BHTD.shape[2]  # keys before the first query

        def logit(rows: QueryRows, k_ends: Tensor) -> Tensor:
            first = before + (rows.rows.start or 0)
            q = rows.scale * rows.q_BHRE
            return decayed_logits(q, rows.k_BHSE, first, sums, ends, k_ends)

        prepare = lambda k_BHSD: decay_to_ends(k_BHSD, sums)  # noqa: E731
        return RowwiseBias(logit, inputs.q_BHTD, inputs.k_BHSD, prepare, is_logit=True)


def decay_to_ends(k_BHSD: Tensor, sums: Tensor) -> Tensor:
    """Returns the keys of all whole blocks as decayed at the end of their block, (B, H, N, BLOCK, D)."""
    whole = k_BHSD.shape[2] // BLOCK
    keys = k_BHSD[:, :, : whole * BLOCK].unflatten(2, (whole, BLOCK))
    return keys * (sums[:, :, :whole, -1:] - sums[:, :, :whole]).exp()


def decayed_logits(
    q_BHRD: Tensor, k_BHSD: Tensor, first: int, sums: Tensor, ends: Tensor, k_ends: Tensor
) -> Tensor:
    """Returns sum over d of q_id k_jd exp(P_id - P_jd), (B, H, R, S), for the queries first, first + 1, ..."""
    after, keys, rows = first + q_BHRD.shape[2], k_BHSD.shape[2], []
    for block in range(first // BLOCK, -(-after // BLOCK)):
        zero = block * BLOCK
        start, stop = max(first, zero), min(after, zero + BLOCK)
        q, own = q_BHRD[:, :, start - first : stop - first], sums[:, :, block, : stop - zero]
        at_q, middle = own[:, :, start - zero :], own[:, :, (stop - zero) // 2, None]
        q_own = q * (at_q - middle).clamp(max=MAX_EXPONENT).exp()
        parts = [q_own @ (k_BHSD[:, :, zero:stop] * (middle - own).clamp(max=MAX_EXPONENT).exp()).mT]
        if block:  # from the end of each earlier block to that of the last one, and on to the queries
            between = (ends[:, :, block - 1, None] - ends[:, :, :block]).exp().to(q.dtype)
            q_start = (q * at_q.exp())[:, :, None] * between[:, :, :, None]
            parts.insert(0, (q_start @ k_ends[:, :, :block].mT).transpose(2, 3).flatten(3))
        rows.append(F.pad(torch.cat(parts, -1), (0, keys - stop)))
    return torch.cat(rows, 2)
