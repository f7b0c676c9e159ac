"""PaTH: between key and query lies a product of Householder-like matrices, one for each token.

Yang et al. PaTH Attention: Position Encoding via Accumulating Householder Transformations. NeurIPS 2025, section 2.2,
and 3.1 for the UT transform. arXiv:2505.16381. As in the authors' code (fla, layers/path_attn.py): low-rank
directions, a convolution of 3 tokens, SiLU, 2 sigmoid, and its initialization. Deviation: the taps start uniform
within 3^-0.5, as convolutions do in torch; theirs start at standard deviation 0.02. PaTH-FoX, with a forget gate, is a
`Stack` of this scheme and `fox`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.causal_convolution import causal_convolution
from posbench.position.numerics import autocast_disabled, lower_triangle, upcast
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

BLOCK, TAPS, RANK = 64, 3, 32  # tokens, tokens, dimensions
Blocks = list[tuple[Tensor, ...]]


@register("scheme/path")
class PaTH(PositionScheme):
    """logit(i, j) = q_i . (H_i ... H_j+1 k_j) / sqrt(D), H_l = I - beta_l w_l w_l^T, |w_l| = 1, 0 < beta_l < 2."""

    traits = Traits(relative=True, lse_mergeable=False, reads_hidden_states=True)
    version = 2  # other sums, equal but for rounding
    decayed_parameters = ("down_LRW", "up_LWR", "tap_LWN", "beta_LHW")

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.down_LRW = nn.Parameter(0.02 * torch.randn(shape.n_layers, RANK, shape.d_model))
        self.up_LWR = nn.Parameter(0.02 * torch.randn(shape.n_layers, shape.d_model, RANK))
        self.tap_LWN = nn.Parameter((2 * torch.rand(shape.n_layers, shape.d_model, TAPS) - 1) * TAPS**-0.5)
        self.beta_LHW = nn.Parameter(0.02 * torch.randn(shape.n_layers, shape.n_heads, shape.d_model))
        self.bias_LH = nn.Parameter(torch.zeros(shape.n_layers, shape.n_heads))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        assert inputs.x_BSW is not None
        with autocast_disabled(inputs.x_BSW):
            w, t = self.blocks(upcast(inputs.x_BSW), inputs.layer)

        def logit(rows: QueryRows, blocks: Blocks) -> Tensor:
            start = inputs.k_BHSD.shape[2] - inputs.q_BHTD.shape[2] + (rows.rows.start or 0)
            return path_logits(rows.scale * rows.q_BHRE, start, rows.k_BHSE.shape[2], blocks)

        prepare = lambda k_BHSD: transform_keys(k_BHSD, w, t)  # noqa: E731
        return RowwiseBias(logit, inputs.q_BHTD, inputs.k_BHSD, prepare, is_logit=True)

    def blocks(self, x_BSW: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Returns by blocks of tokens: w (N, B, H, BLOCK, D) and the UT transform's matrices (N, B, H, BLOCK, BLOCK)."""
        down, up, tap, weight, bias = (upcast(parameter[layer]) for parameter in self.parameters())
        w_BHSD = (x_BSW @ down.T @ up.T).unflatten(-1, (len(bias), -1)).transpose(1, 2)
        w = F.silu(causal_convolution(w_BHSD, tap))
        w = split_blocks(w * torch.rsqrt(w.square().sum(-1, keepdim=True) + 1e-6))
        beta = split_blocks(2 * torch.sigmoid(F.linear(x_BSW, weight, bias)).transpose(1, 2)[..., None])
        step, lower = beta[..., 0].diag_embed(), beta * w @ w.mT  # read below the diagonal
        return w, torch.linalg.solve_triangular(lower, step, upper=False, unitriangular=True)


def split_blocks(x_BHSD: Tensor) -> Tensor:
    """Splits the tokens into blocks, (N, B, H, BLOCK, D), each contiguous; the last block is padded with zeros."""
    blocks = F.pad(x_BHSD, (0, 0, 0, -x_BHSD.shape[2] % BLOCK)).unflatten(2, (-1, BLOCK))
    return blocks.movedim(2, 0).contiguous()


def transform_keys(k_BHSD: Tensor, w: Tensor, t: Tensor) -> Blocks:
    """Returns for each block: w, u, keys, their overlap with t w, keys at its end, and its product I - w^T u."""
    k, u = split_blocks(k_BHSD), t @ w
    overlap = t @ lower_triangle(w @ k.mT, -1)
    product = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device) - w.mT @ u
    return list(zip(*(x.unbind() for x in (w, u, k, overlap, k - overlap.mT @ w, product)), strict=True))


def path_logits(q_BHRD: Tensor, start: int, keys: int, blocks: Blocks) -> Tensor:
    """Returns q_i . (H_i ... H_j+1 k_j), (B, H, R, keys), for the queries start, start + 1, ..."""
    rows = []
    for block in range(start // BLOCK, -(-(start + q_BHRD.shape[2]) // BLOCK)):
        w, u, k, k_overlap, _, _ = blocks[block]
        first = max(start, block * BLOCK)
        q = q_BHRD[:, :, first - start : (block + 1) * BLOCK - start]
        q_overlap = lower_triangle(q @ w.mT, first - block * BLOCK)
        parts, q = [q @ k.mT - q_overlap @ k_overlap], q - q_overlap @ u
        for earlier in range(block - 1, -1, -1):
            *_, k_end, product = blocks[earlier]
            parts.append(q @ k_end.mT)
            q = q @ product if earlier else q
        row, padding = torch.cat(parts[::-1], -1), keys - (block + 1) * BLOCK
        rows.append(F.pad(row, (0, padding)) if padding else row)
    return torch.cat(rows, 2) if len(rows) > 1 else rows[0]
