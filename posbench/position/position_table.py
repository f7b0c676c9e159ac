"""A trained table with one row per position, and the named policies for what lies past its last row.

`undefined` says so, `clamp` repeats the last row, `wrap` starts again, `interpolate` spreads the rows over
the declared length. Positions between two rows mix the two.
"""

import torch
from torch import Tensor

from posbench.errors import UndefinedError, unknown
from posbench.position.geometry import Geometry

POLICIES = ("undefined", "clamp", "wrap", "interpolate")


def check_policy(policy: str) -> str:
    """The policy, if there is one of that name."""
    if policy not in POLICIES:
        raise unknown("policy of a learned table past its length", policy, POLICIES)
    return policy


def check_length(table_NW: Tensor, policy: str, length: int) -> None:
    """Raise if a table has no answer at `length` tokens."""
    if policy == "undefined" and length > len(table_NW):
        raise UndefinedError(
            f"a learned table of {len(table_NW)} rows has no position {length - 1}: evaluate at most "
            f"{len(table_NW)} tokens, or give the scheme a policy ({', '.join(POLICIES[1:])})"
        )


def look_up(table_NW: Tensor, policy: str, geo: Geometry, pos_T: Tensor) -> Tensor:
    """(T, W): the rows at positions of a geometry, its queries' or its keys'."""
    key = ("rows", policy, len(table_NW), "queries" if pos_T is geo.q_pos_T else "keys")
    below_T, above_T, way_T = geo.memo(key, lambda: rows(pos_T, len(table_NW), policy, geo.length))
    return torch.lerp(table_NW[below_T], table_NW[above_T], way_T[:, None].to(table_NW.dtype))


def rows(pos_T: Tensor, size: int, policy: str, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """(T,) each: the row at or below a position, the next one, and the part of the way to it."""
    pos_T = pos_T.double()
    if policy == "interpolate":
        pos_T = pos_T * min(1, size / length)
    elif policy == "clamp":
        pos_T = pos_T.clamp(max=size - 1)
    elif policy == "wrap":
        pos_T = pos_T % size
    below_T = pos_T.long().clamp(max=size - 1)
    above_T = (below_T + 1) % size if policy == "wrap" else (below_T + 1).clamp(max=size - 1)
    # Positions that were moved past the table are no number: `check_length` sees lengths alone.
    return below_T, above_T, torch.where(pos_T < size, pos_T - below_T, torch.nan)
