"""What a line of the benchmark is, and when it fails."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.benchmark.paired import Ratio

# A clock's lines fail where they miss their goal by more than this: machines differ. Memory is exact.
TOLERANCE = 1.1


@dataclass(frozen=True)
class Line:
    """One comparison; it fails where its whole interval lies above its goal by more than is tolerated.

    Attributes:
        what: what of ours, in what shape.
        peer: what it is compared with.
        goal: of ours over the peer's.
        ratio: what was measured; None if it could not be.
        unit: of what was measured of each: ms, or MB.
        tolerance: a factor on the goal.
        skipped: why nothing was measured.
    """

    what: str
    peer: str
    goal: float
    ratio: Ratio | None
    unit: str = "ms"
    tolerance: float = TOLERANCE
    skipped: str = ""

    @property
    def passed(self) -> bool:
        return self.ratio is None or self.ratio.low <= self.tolerance * self.goal

    @property
    def result(self) -> str:
        if self.ratio is None:
            return f"skipped: {self.skipped}"
        return "ok" if self.passed else "FAILED"
