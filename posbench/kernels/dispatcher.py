"""Kernels by name. One that is asked for by name and cannot run raises; it never falls back in silence."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from posbench.errors import IncompatibleError, unknown
from posbench.kernels.dense import dense
from posbench.kernels.flex import flex
from posbench.kernels.flex import why_unsupported as why_flex_unsupported
from posbench.kernels.relative_values import with_relative_values
from posbench.kernels.sdpa import sdpa
from posbench.kernels.sdpa import why_unsupported as why_sdpa_unsupported
from posbench.position.call import AttentionCall, Kernel

KERNELS: dict[str, tuple[Kernel, Callable[[AttentionCall], str | None]]] = {
    "dense": (dense, lambda call: None),
    "flex": with_relative_values(flex, why_flex_unsupported),
    "sdpa": (sdpa, why_sdpa_unsupported),
}
NAMES = ("auto", *KERNELS)


class KernelDispatcher:
    """A kernel that notes which implementations ran, for the rows' `kernel` column."""

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise unknown("kernel", name, NAMES)
        self.name = name
        self._ran: set[str] = set()

    def __call__(self, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        for name in self.order(call):
            run, why_unsupported = KERNELS[name]
            why_not = why_unsupported(call)
            if why_not is None:
                self._ran.add(name)
                return run(call)
            if name == self.name:
                raise IncompatibleError(
                    f"kernel {name} cannot run this scheme here: {why_not}; use runtime.kernel=dense or auto"
                )
        raise AssertionError("dense runs everything")

    def order(self, call: AttentionCall) -> tuple[str, ...]:
        """Which kernels are tried, best first: FlexAttention on a GPU, except where nothing is added or hidden."""
        if self.name != "auto":
            return (self.name,)
        # torch.compile knows no `not` of a tuple.
        plain = call.bias is None and len(call.masks) == 0 and not call.with_lse
        if call.q_BHTE.device.type == "cuda" and not plain:
            return ("flex", "sdpa", "dense")
        return ("sdpa", "dense")

    def note(self, name: str) -> None:
        """Something else computes attention, such as a model that is a black box."""
        self._ran.add(name)

    @property
    def ran(self) -> str:
        """What has run since the start, such as "sdpa" or "dense+sdpa"; "none" where no pairs were attended."""
        return "+".join(sorted(self._ran)) or "none"


__all__ = ["NAMES", "Kernel", "KernelDispatcher"]
