"""A learned table with a row for each position, and the rules for positions past its last row."""

import torch
from torch import Tensor, nn

from posbench.errors import UndefinedError, unknown
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme, Traits

# Past the last row: no answer; the last row again; the first row follows; rows are spread over the declared length.
OUT_OF_RANGE = ("undefined", "clamp", "wrap", "interpolate")


class PositionTable(PositionScheme):
    """A scheme with a trained row for each position; a position between two rows has their linear interpolation.

    Args:
        row_NW: the initial rows, one for each position, (positions, d_model).
        out_of_range: one of `OUT_OF_RANGE`.
    """

    decayed_parameters: tuple[str, ...] = ("row_NW",)

    def __init__(self, row_NW: Tensor, out_of_range: str) -> None:
        super().__init__()
        if out_of_range not in OUT_OF_RANGE:
            raise unknown("out_of_range of a learned table", out_of_range, OUT_OF_RANGE)
        self.row_NW = nn.Parameter(row_NW)
        self.out_of_range = out_of_range
        self.traits = Traits(
            relative=False,
            prefix_stable=out_of_range != "interpolate",
            capabilities=frozenset({"positions"}),
        )

    def check(self, length: int) -> None:
        if self.out_of_range == "undefined" and length > len(self.row_NW):
            raise UndefinedError(
                f"a learned table of {len(self.row_NW)} rows has no position {length - 1}: evaluate at most "
                f"{len(self.row_NW)} tokens, or set out_of_range of the scheme ({', '.join(OUT_OF_RANGE[1:])})"
            )

    def rows_at(self, geo: Geometry, pos_T: Tensor) -> Tensor:
        """Returns the rows (T, W) at positions of a geometry, those of its queries or of its keys."""
        key = (self, "rows", "queries" if pos_T is geo.q_pos_T else "keys")
        below_T, above_T, fraction_T = geo.memo(key, lambda: self.neighbours(pos_T, geo.length))
        fraction_T1 = fraction_T[:, None].to(self.row_NW.dtype)
        return torch.lerp(self.row_NW[below_T], self.row_NW[above_T], fraction_T1)

    def neighbours(self, pos_T: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the rows at or below and above each position, and its fraction of the way from one to the other; (T,) each."""
        pos_T, size = pos_T.double(), len(self.row_NW)
        if self.out_of_range == "interpolate":
            pos_T = pos_T * min(1, size / length)
        elif self.out_of_range == "clamp":
            pos_T = pos_T.clamp(max=size - 1)
        elif self.out_of_range == "wrap":
            pos_T = pos_T % size
        below_T = pos_T.long().clamp(max=size - 1)
        above_T = (below_T + 1) % size if self.out_of_range == "wrap" else (below_T + 1).clamp(max=size - 1)
        # NaN, not a neighbouring row, for positions that were moved past the table: `check` is called with lengths only.
        return below_T, above_T, torch.where(pos_T < size, pos_T - below_T, torch.nan)
