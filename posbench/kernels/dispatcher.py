"""Kernels by name. One that is asked for by name and cannot run raises; it never falls back in silence."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from posbench.errors import IncompatibleError, unknown
from posbench.kernels.dense import dense
from posbench.kernels.flex import flex
from posbench.kernels.flex import refusal as flex_refusal
from posbench.kernels.relative_values import by_pair
from posbench.kernels.sdpa import refusal as sdpa_refusal
from posbench.kernels.sdpa import sdpa
from posbench.position.call import Kernel, Pairs

KERNELS: dict[str, tuple[Kernel, Callable[[Pairs], str | None]]] = {
    "dense": (dense, lambda pairs: None),
    "flex": by_pair(flex, flex_refusal),
    "sdpa": (sdpa, sdpa_refusal),
}
NAMES = ("auto", *KERNELS)


class Recording:
    """A kernel that notes which implementations ran, for the rows' `kernel` column."""

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise unknown("kernel", name, NAMES)
        self.name = name
        self._ran: set[str] = set()

    def __call__(self, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
        for name in self.order(pairs):
            run, refusal = KERNELS[name]
            why_not = refusal(pairs)
            if why_not is None:
                self._ran.add(name)
                return run(pairs)
            if name == self.name:
                raise IncompatibleError(
                    f"kernel {name} cannot run this scheme here: {why_not}; use runtime.kernel=dense or auto"
                )
        raise AssertionError("dense runs everything")

    def order(self, pairs: Pairs) -> tuple[str, ...]:
        """Which kernels are tried, best first: FlexAttention on a GPU, except where nothing is added or hidden."""
        if self.name != "auto":
            return (self.name,)
        # torch.compile knows no `not` of a tuple.
        plain = pairs.term is None and len(pairs.masks) == 0 and not pairs.with_lse
        if pairs.q_BHTE.device.type == "cuda" and not plain:
            return ("flex", "sdpa", "dense")
        return ("sdpa", "dense")

    def note(self, name: str) -> None:
        """Something else computes attention, such as a model that is a black box."""
        self._ran.add(name)

    @property
    def ran(self) -> str:
        """What has run since the start, such as "sdpa" or "dense+sdpa"; "none" where no pairs were attended."""
        return "+".join(sorted(self._ran)) or "none"


__all__ = ["NAMES", "Kernel", "Recording"]
