"""Learned: a trained vector for each position, added to the token embeddings.

Devlin et al. BERT. NAACL 2019, section 3. arXiv:1810.04805. Also GPT-2's positions.
Past its last row a table has no answer, so the default is to say so. The policies that answer all the same
are named in the configuration: `clamp` repeats the last row, `wrap` starts again, `interpolate` spreads the
rows over the declared length. Positions between two rows mix the two; rows are drawn at standard deviation
1, as the token embeddings of this project's models are (both 0.02 in GPT-2).
"""

import torch
from torch import Tensor, nn

from posbench.errors import UndefinedError, unknown
from posbench.geometry import Geometry
from posbench.scheme import PositionScheme, Shape, Traits

POLICIES = ("undefined", "clamp", "wrap", "interpolate")


class Learned(PositionScheme):
    """x_p + W[p], with W of as many rows as tokens were trained on."""

    def __init__(self, shape: Shape, policy: str = "undefined") -> None:
        super().__init__()
        if policy not in POLICIES:
            raise unknown("policy of a learned table past its length", policy, POLICIES)
        self.policy = policy
        self.row_NW = nn.Parameter(torch.randn(shape.train_len, shape.width))
        self.traits = Traits(
            relative=False,
            prefix_stable=policy != "interpolate",
            capabilities=frozenset({"positions"}),
        )

    def check(self, length: int) -> None:
        if self.policy == "undefined" and length > len(self.row_NW):
            raise UndefinedError(
                f"a learned table of {len(self.row_NW)} rows has no position {length - 1}: evaluate at most "
                f"{len(self.row_NW)} tokens, or give the scheme a policy ({', '.join(POLICIES[1:])})"
            )

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        if layer > 0:
            return x_BTW
        below_T, above_T, way_T = geo.memo((self, "rows"), lambda: self.rows(geo.q_pos_T, geo.length))
        way_T1 = way_T[:, None].to(self.row_NW.dtype)
        return x_BTW + torch.lerp(self.row_NW[below_T], self.row_NW[above_T], way_T1)

    def rows(self, pos_T: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """(T,) each: the row at or below a position, the next one, and the part of the way to it."""
        size = len(self.row_NW)
        pos_T = pos_T.double()
        if self.policy == "interpolate":
            pos_T = pos_T * min(1, size / length)
        elif self.policy == "clamp":
            pos_T = pos_T.clamp(max=size - 1)
        elif self.policy == "wrap":
            pos_T = pos_T % size
        below_T = pos_T.long().clamp(max=size - 1)
        above_T = (below_T + 1) % size if self.policy == "wrap" else (below_T + 1).clamp(max=size - 1)
        # Positions that were moved past the table are no number: `check` sees lengths alone.
        return below_T, above_T, torch.where(pos_T < size, pos_T - below_T, torch.nan)
