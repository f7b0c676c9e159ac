"""What a line of the benchmark is, and when it fails."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.benchmark.paired import Ratio

# A clock's lines fail where they miss their goal by more than this: machines differ. Memory is exact.
TOLERANCE = 1.1


@dataclass(frozen=True)
class Line:
    """One comparison; it fails where its whole interval lies above its goal by more than is tolerated.

    A rate is a line of its own kind: it has a least, no peer, and fails where its whole interval lies below.

    Attributes:
        what: what of ours, in what shape.
        peer: what it is compared with.
        goal: of ours over the peer's; of a rate, the least.
        ratio: what was measured; None if it could not be.
        unit: of what was measured of each: ms, or MB.
        tolerance: a factor on the goal.
        skipped: why nothing was measured.
        least: whether it is a rate.
        failure: what went wrong while it was measured.
    """

    what: str
    peer: str
    goal: float
    ratio: Ratio | None
    unit: str = "ms"
    tolerance: float = TOLERANCE
    skipped: str = ""
    least: bool = False
    failure: str = ""

    @property
    def passed(self) -> bool:
        if self.ratio is None:
            return not self.failure
        if self.least:
            return self.ratio.high * self.tolerance >= self.goal
        return self.ratio.low <= self.tolerance * self.goal

    @property
    def result(self) -> str:
        if self.ratio is None:
            return f"FAILED: {self.failure}" if self.failure else f"skipped: {self.skipped}"
        return "ok" if self.passed else "FAILED"
