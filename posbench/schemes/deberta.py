"""DeBERTa: content-to-position and position-to-content logits beside content-to-content.

He et al. DeBERTa: Decoding-enhanced BERT with Disentangled Attention. ICLR 2021, section 3.1, equations 2 to 4.
arXiv:2006.03654. With `position_buckets` the logarithmic buckets of version 2, as in transformers (and
arXiv:2111.09543).
Position-to-content reads row delta(j, i) in the paper and row delta(i, j) in the authors' code and its ports
(github.com/microsoft/DeBERTa/issues/162): `p2c_rows` selects one. One embedding of rows for all layers, projected by
each layer; no biases, no dropout, no absolute positions before the output. Rows start at standard deviation 1 (the
authors': 0.02), and w is 64 by default (theirs: 512). The table has only those of the 2w rows that a causal model reads.
A fractional distance uses the row of its integer part.
"""

import math

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError, unknown
from posbench.instantiate import register
from posbench.position.biases import CompositeBias, KeyContentBias, QueryContentBias, floor_distance
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

P2C_ROWS = ("paper", "code")


@register("scheme/deberta")
class DeBERTa(PositionScheme):
    """logit(i, j) = [q_i . k_j + q_i . (P[d(i, j)] W_K) + k_j . (P[d(j, i)] W_Q)] / sqrt(3D), d clipped or in buckets."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))
    decayed_parameters = ("row_NW", "key_LWHD", "query_LWHD")

    def __init__(
        self,
        shape: ModelShape,
        max_relative_positions: int = 64,
        position_buckets: int | None = None,
        p2c_rows: str = "paper",
    ) -> None:
        super().__init__()
        self.max_relative_positions, self.position_buckets = max_relative_positions, position_buckets
        most = 2 * max_relative_positions - 3
        if max_relative_positions < 2 or not (position_buckets is None or 4 <= position_buckets <= most):
            raise ConfigError(
                f"deberta max_relative_positions {max_relative_positions}, position_buckets {position_buckets}: give "
                f"max_relative_positions of at least 2 tokens, and 4 to {most} buckets or null for none"
            )
        if p2c_rows not in P2C_ROWS:
            raise unknown("p2c_rows of deberta", p2c_rows, P2C_ROWS)
        self.span = position_buckets or self.max_relative_positions
        self.paper = p2c_rows == "paper"
        self.row_NW = nn.Parameter(torch.randn(self.span * (2 if self.paper else 1), shape.d_model))
        size = (shape.n_layers, shape.d_model, shape.n_heads, shape.head_dim)
        self.key_LWHD, self.query_LWHD = (
            nn.Parameter(torch.randn(size) * shape.d_model**-0.5) for _ in ("key", "query")
        )

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        return inputs.q_BHTD / math.sqrt(3), inputs.k_BHSD

    def attention_bias(self, inputs: AttentionInputs) -> CompositeBias:
        # Row `span` is distance 0; with growing distance d(i, j) increases from there and d(j, i) decreases.
        c2p_KW = self.row_NW[-self.span :]
        p2c_KW = self.row_NW[: self.span + 1].flip(0) if self.paper else c2p_KW
        scale = 1 / math.sqrt(3 * inputs.q_BHTD.shape[-1])
        key_HKD, query_HKD = (
            torch.einsum("kw,whd->hkd", rows_KW, project_LWHD[inputs.layer]) * scale
            for rows_KW, project_LWHD in ((c2p_KW, self.key_LWHD), (p2c_KW, self.query_LWHD))
        )
        last = query_HKD.shape[1] - 1
        c2p = QueryContentBias(inputs.q_BHTD @ key_HKD.mT, lambda n: self.row(n).clamp(max=self.span - 1))
        p2c = KeyContentBias(inputs.k_BHSD @ query_HKD.mT, lambda n: self.row(n).clamp(max=last))
        return CompositeBias((c2p, p2c))

    def row(self, distance: Tensor) -> Tensor:
        """Returns the row of each distance before clipping: the distance, or its bucket (half exact, half logarithmic)."""
        near = floor_distance(distance)
        if self.position_buckets is None:
            return near
        exact = self.position_buckets // 2
        all_octaves = math.log((self.max_relative_positions - 1) / exact)
        octaves = torch.log(near.clamp(min=exact).double() / exact) / all_octaves
        return torch.where(near <= exact, near, (exact + torch.ceil(octaves * (exact - 1))).long())
