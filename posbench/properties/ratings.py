"""Marks: whether a scheme has a property, told apart without colour, and a number in few letters."""

from __future__ import annotations

from dataclasses import dataclass

YES, PARTIAL, NO, NOT_APPLICABLE = "●", "◐", "○", "–"


@dataclass(frozen=True)
class Rating:
    """YES where a scheme has a property, PARTIAL, NO, or NOT_APPLICABLE where it does not apply; and what was measured."""

    sign: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.text}".strip()


def format_compact(value: float) -> str:
    """Two digits, in as few letters as they take."""
    size = abs(value)
    if size >= 1000:
        return f"{value / 1000:.2g}k"
    if size >= 10 or value == 0:
        return f"{value:.0f}"
    return f"{value:.2g}" if size >= 0.01 else f"{value:.1g}".replace("e-0", "e-")
