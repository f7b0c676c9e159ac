"""A line of the benchmark, and the rule by which it fails."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.benchmark.paired import Ratio

# Factor by which times may exceed their goals, since machines differ. Memory may not exceed its goal.
TOLERANCE = 1.1


@dataclass(frozen=True)
class Line:
    """One comparison of posbench with a peer.

    It fails if the whole interval of the ratio lies above goal times tolerance. A rate has a minimum in place of a
    peer and fails if its whole interval lies below.

    Attributes:
        what: the measured operation and its shape.
        peer: the operation that it is compared with.
        goal: largest ratio of ours to the peer's; smallest rate.
        ratio: the measurement, None without one.
        unit: unit of both measurements: ms, MB or tokens/s.
        tolerance: factor on the goal.
        skipped: the reason why nothing was measured.
        least: True for a rate.
        failure: the error of the measurement.
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
