"""TUPE: content logits plus position logits, each computed with its own projections.

Ke, He, Liu. Rethinking Positional Encoding in Language Pre-training. ICLR 2021, sections 3.1 to 3.3.
arXiv:2006.15595. TUPE-A, and TUPE-R with `rel_pos_bias`: T5's biases in addition. Positions are normalized as in the
authors' code (guolinke/TUPE), without its trained gain and bias. The first token is untied: the position logit of any
query with it is a trained number for each head, which also replaces the relative bias; its own query attends to no other
key under a causal mask. One table and one pair of projections for all layers; positions past the table:
posbench/position/position_table.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.geometry import Geometry
from posbench.position.position_table import PositionTable
from posbench.position.relative_buckets import bucket_bias, check_buckets, init_bucket_bias
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/tupe")
class TUPE(PositionTable):
    """logit(i, j) = q_i . k_j / sqrt(2D) + (LN(p_i) U_Q) . (LN(p_j) U_K) / sqrt(2D) + b(i - j); the last two are theta at j = 0."""

    decayed_parameters = ("row_NW", "query_WHD", "key_WHD")

    def __init__(
        self,
        shape: ModelShape,
        rel_pos_bias: bool = False,
        num_buckets: int = 32,
        max_distance: int = 128,
        out_of_range: str = "undefined",
    ) -> None:
        check_buckets("tupe", num_buckets, max_distance)
        super().__init__(torch.randn(shape.train_len, shape.d_model), out_of_range)
        self.max_distance = max_distance
        shape_WHD = (shape.d_model, shape.n_heads, shape.head_dim)
        self.query_WHD, self.key_WHD = (
            nn.Parameter(torch.randn(shape_WHD) * shape.d_model**-0.5) for _ in ("query", "key")
        )
        self.theta_H = nn.Parameter(torch.zeros(shape.n_heads))
        self.bias_KH = init_bucket_bias(shape, num_buckets) if rel_pos_bias else None

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return inputs.q_BHTD / math.sqrt(2), inputs.k_BHSD

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return UntiedPositionBias(self, inputs.geo)

    def bias(self, distance: Tensor) -> Tensor:
        """Returns the relative bias of each distance, (H, *distance.shape) nats."""
        assert self.bias_KH is not None
        return bucket_bias(self.bias_KH, distance, self.max_distance)

    def project(self, geo: Geometry, pos_T: Tensor, weight_WHD: Tensor) -> Tensor:
        """Returns the projected positions of a geometry, (H, T, D)."""
        row_TW = self.rows_at(geo, pos_T)
        return torch.einsum("tw,whd->htd", F.layer_norm(row_TW, row_TW.shape[-1:]), weight_WHD)


class UntiedPositionBias(AttentionBias):
    """The position logits of all pairs, (H, T, S); the same for all sequences and layers."""

    def __init__(self, scheme: TUPE, geo: Geometry) -> None:
        self.scheme = scheme
        self.q_HTD = scheme.project(geo, geo.q_pos_T, scheme.query_WHD)
        self.k_HSD = scheme.project(geo, geo.k_pos_S, scheme.key_WHD)

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        k_HSD = self.k_HSD[:, : len(geo.k_pos_S)]  # a kernel may pass a geometry of the first keys only
        logit_HRS = self.q_HTD[:, rows] @ k_HSD.mT / math.sqrt(2 * self.q_HTD.shape[-1])
        if self.scheme.bias_KH is not None:
            logit_HRS = logit_HRS + DistanceBias(self.scheme.bias).value(geo, rows)
        return torch.where(geo.k_index_S == 0, self.scheme.theta_H[:, None, None], logit_HRS)
