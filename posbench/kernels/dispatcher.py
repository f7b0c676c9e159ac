"""Selects a kernel by name. A kernel selected by name raises if it cannot run; only `auto` falls back."""

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
    """A kernel that runs the first implementation that supports the call, and records which ones ran.

    Args:
        name: one of NAMES; "auto" tries all kernels that suit the device.

    Raises:
        ConfigError: if there is no kernel of that name.
        IncompatibleError: on a call that the kernel selected by name does not support.
    """

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
        raise AssertionError("dense supports every call")

    def order(self, call: AttentionCall) -> tuple[str, ...]:
        """Returns the kernels to try, in order. On a GPU, FlexAttention is first unless the call is plain causal."""
        if self.name != "auto":
            return (self.name,)
        # torch.compile does not support `not` of a tuple.
        plain = call.bias is None and len(call.masks) == 0 and not call.with_lse
        if call.q_BHTE.device.type == "cuda" and not plain:
            return ("flex", "sdpa", "dense")
        return ("sdpa", "dense")

    def note(self, name: str) -> None:
        """Records the name of an attention implementation outside this package, such as transformers'."""
        self._ran.add(name)

    @property
    def ran(self) -> str:
        """Names of the kernels that ran, such as "sdpa" or "dense+sdpa"; "none" if no kernel has run."""
        return "+".join(sorted(self._ran)) or "none"


__all__ = ["NAMES", "Kernel", "KernelDispatcher"]
