"""Kernels by name. One that is asked for by name and cannot run raises; it never falls back in silence."""

from __future__ import annotations

from torch import Tensor

from posbench.attend import Kernel, Pairs
from posbench.errors import IncompatibleError, unknown
from posbench.kernels.dense import dense
from posbench.kernels.sdpa import refusal, sdpa

NAMES = ("auto", "dense", "sdpa")


class Recording:
    """A kernel that notes which implementations ran, for the rows' `kernel` column."""

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise unknown("kernel", name, NAMES)
        self.name = name
        self._ran: set[str] = set()

    def __call__(self, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
        why_not = refusal(pairs)
        if self.name == "sdpa" and why_not is not None:
            raise IncompatibleError(
                f"kernel sdpa cannot run this scheme: {why_not}; use kernel=dense or auto"
            )
        if self.name != "dense" and why_not is None:
            self._ran.add("sdpa")
            return sdpa(pairs)
        self._ran.add("dense")
        return dense(pairs)

    @property
    def ran(self) -> str:
        """What has run since the start, such as "sdpa" or "dense+sdpa"; "none" where no pairs were attended."""
        return "+".join(sorted(self._ran)) or "none"


__all__ = ["NAMES", "Kernel", "Recording"]
