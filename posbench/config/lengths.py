"""Lengths in tokens from multiples of the training length."""

from __future__ import annotations

from fractions import Fraction


def tokens_at(multiple: float, train_len: int) -> float:
    """Returns `multiple` times the training length; 1.1 times 50 is 55, where binary fractions give a little more."""
    return float(Fraction(str(multiple)) * train_len)
