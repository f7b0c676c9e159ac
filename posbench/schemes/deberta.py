"""DeBERTa: what the query says of the distance, and what the key says of it, beside content to content.

He et al. DeBERTa: Decoding-enhanced BERT with Disentangled Attention. ICLR 2021, section 3.1, equations 2 to 4.
arXiv:2006.03654. Log buckets: its version 2, as in transformers (arXiv:2111.09543 keeps them).
Position to content reads row delta(j, i) in the paper, and delta(i, j) in the authors' code and its ports
(github.com/microsoft/DeBERTa/issues/162): both are here, by name. Rows of one embedding for all layers,
projected by each; no biases, no dropout, no absolute positions in the last layers. Of the 2w rows only those
that a causal model reads exist. A fractional distance uses the row of its integer part.
"""

import math

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError, unknown
from posbench.position.biases import KeyContent, QueryContent, Sum, Term, whole
from posbench.position.scheme import PositionScheme, Shape, Site, Traits

ROWS = ("paper", "code")


class DeBERTa(PositionScheme):
    """logit(i, j) = [q_i . k_j + q_i . (P[d(i, j)] W_K) + k_j . (P[d(j, i)] W_Q)] / sqrt(3D), d clipped or in buckets."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(
        self, shape: Shape, clip: int = 64, buckets: int | None = None, p2c_rows: str = "paper"
    ) -> None:
        super().__init__()
        self.clip, self.buckets = clip, buckets
        if clip < 2 or (buckets is not None and not 4 <= buckets < 2 * clip - 2):
            raise ConfigError(
                f"deberta clip {clip}, buckets {buckets}: give a clip of at least 2 tokens, and 4 to "
                f"{2 * clip - 3} buckets or null for none"
            )
        if p2c_rows not in ROWS:
            raise unknown("rows of position to content", p2c_rows, ROWS)
        self.span = buckets or self.clip
        self.paper = p2c_rows == "paper"
        self.row_NW = nn.Parameter(torch.randn(self.span * (2 if self.paper else 1), shape.width))
        self.key_LWHD, self.query_LWHD = (
            nn.Parameter(
                torch.randn(shape.layers, shape.width, shape.heads, shape.head_dim) * shape.width**-0.5
            )
            for _ in ("key", "query")
        )

    def qk(self, site: Site) -> tuple[Tensor, Tensor]:
        return site.q_BHTD / math.sqrt(3), site.k_BHSD

    def term(self, site: Site) -> Term:
        # Row `span` is distance 0; towards the past d(i, j) goes up from there and d(j, i) goes down.
        ahead_KW = self.row_NW[-self.span :]
        back_KW = self.row_NW[: self.span + 1].flip(0) if self.paper else ahead_KW
        scale = 1 / math.sqrt(3 * site.q_BHTD.shape[-1])
        key_HKD, query_HKD = (
            torch.einsum("kw,whd->hkd", rows_KW, project_LWHD[site.layer]) * scale
            for rows_KW, project_LWHD in ((ahead_KW, self.key_LWHD), (back_KW, self.query_LWHD))
        )
        return Sum(
            (
                QueryContent(site.q_BHTD @ key_HKD.mT, lambda n: self.row(n).clamp(max=self.span - 1)),
                KeyContent(
                    site.k_BHSD @ query_HKD.mT, lambda n: self.row(n).clamp(max=query_HKD.shape[1] - 1)
                ),
            )
        )

    def row(self, distance: Tensor) -> Tensor:
        """The class of each distance, not yet clipped: itself, or half of the buckets exact and the others by log."""
        near = whole(distance)
        if self.buckets is None:
            return near
        exact = self.buckets // 2
        octaves = torch.log(near.clamp(min=exact).double() / exact) / math.log((self.clip - 1) / exact)
        return torch.where(near <= exact, near, (exact + torch.ceil(octaves * (exact - 1))).long())
