"""Ratings of properties, readable without colour, and compact numbers."""

from __future__ import annotations

from dataclasses import dataclass

YES, PARTIAL, NO, NOT_APPLICABLE = "●", "◐", "○", "–"


@dataclass(frozen=True)
class Rating:
    """A mark (YES, PARTIAL, NO or NOT_APPLICABLE) for a property of a scheme, and the measured value."""

    sign: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.text}".strip()


def format_compact(value: float) -> str:
    """Formats a number with two digits in few characters."""
    size = abs(value)
    if size >= 1000:
        return f"{value / 1000:.2g}k" if size < 99_500 else f"{value:.2g}".replace("e+0", "e")
    if size >= 10 or value == 0:
        return f"{value:.0f}"
    return f"{value:.2g}" if size >= 0.01 else f"{value:.1g}".replace("e-0", "e-")
