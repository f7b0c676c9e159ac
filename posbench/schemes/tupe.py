"""TUPE: content with content and position with position, each by projections of its own.

Ke, He, Liu. Rethinking Positional Encoding in Language Pre-training. ICLR 2021, sections 3.1 and 3.2.
arXiv:2006.15595. TUPE-A, and TUPE-R with `rel_pos_bias`: T5's biases on top. The normalisation of positions is the
authors' code's (guolinke/TUPE), less its gain and bias. The first token is untied: what others say to it by
position is a trained number for each head, in place of the relative bias too; what it says to others is moot
under a causal mask. One table and one pair of projections for all layers; past it see posbench/position/position_table.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.geometry import Geometry
from posbench.position.position_table import check_length, check_policy, look_up
from posbench.position.relative_buckets import bucket, check_buckets
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/tupe")
class TUPE(PositionScheme):
    """logit(i, j) = q_i . k_j / sqrt(2D) + (LN(p_i) U_Q) . (LN(p_j) U_K) / sqrt(2D) + b(i - j); the last two are theta at j = 0."""

    def __init__(
        self,
        shape: ModelShape,
        rel_pos_bias: bool = False,
        num_buckets: int = 32,
        max_distance: int = 128,
        policy: str = "undefined",
    ) -> None:
        super().__init__()
        check_buckets("tupe", num_buckets, max_distance)
        self.policy, self.max_distance = check_policy(policy), max_distance
        able = frozenset({"positions"})
        self.traits = Traits(relative=False, prefix_stable=policy != "interpolate", capabilities=able)
        self.row_NW = nn.Parameter(torch.randn(shape.train_len, shape.d_model))
        shape_WHD = (shape.d_model, shape.n_heads, shape.head_dim)
        self.query_WHD, self.key_WHD = (
            nn.Parameter(torch.randn(shape_WHD) * shape.d_model**-0.5) for _ in ("query", "key")
        )
        self.theta_H = nn.Parameter(torch.zeros(shape.n_heads))
        bias_KH = torch.randn(num_buckets, shape.n_heads) * shape.d_model**-0.5
        self.bias_KH = nn.Parameter(bias_KH) if rel_pos_bias else None

    def check(self, length: int) -> None:
        check_length(self.row_NW, self.policy, length)

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return inputs.q_BHTD / math.sqrt(2), inputs.k_BHSD

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return Untied(self, inputs.geo)

    def bias(self, distance: Tensor) -> Tensor:
        """(H, *shape of distance) nats."""
        assert self.bias_KH is not None
        return self.bias_KH[bucket(distance, len(self.bias_KH), self.max_distance)].movedim(-1, 0)


class Untied(AttentionBias):
    """What positions say to positions, by head; the same for all sequences and layers."""

    def __init__(self, scheme: TUPE, geo: Geometry) -> None:
        def heads(pos_T: Tensor, project_WHD: Tensor) -> Tensor:
            row_TW = look_up(scheme.row_NW, scheme.policy, geo, pos_T)
            return torch.einsum("tw,whd->htd", F.layer_norm(row_TW, row_TW.shape[-1:]), project_WHD)

        self.scheme = scheme
        self.q_HTD, self.k_HSD = heads(geo.q_pos_T, scheme.query_WHD), heads(geo.k_pos_S, scheme.key_WHD)

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        k_HSD = self.k_HSD[:, : len(geo.k_pos_S)]  # a kernel may ask for the first keys alone
        said_HRS = self.q_HTD[:, rows] @ k_HSD.mT / math.sqrt(2 * self.q_HTD.shape[-1])
        if self.scheme.bias_KH is not None:
            said_HRS = said_HRS + DistanceBias(self.scheme.bias).value(geo, rows)
        return torch.where(geo.k_index_S == 0, self.scheme.theta_H[:, None, None], said_HRS)
