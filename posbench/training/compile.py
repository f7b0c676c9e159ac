"""torch.compile for training: one graph or none.

With several graphs, the Python code between them is the overhead that compilation should remove, and a value that
leaves the device between them is compiled anew for every value. `auto` therefore compiles what is a single graph, runs
the rest uncompiled, and records it in the metadata of the model; `true` raises an error instead. The kernel `dense` is
a single graph, but with a part for every few rows of every layer (1200 parts for 12 layers over 32 x 1024 tokens; 8 of
them take a minute to compile), so `auto` leaves it uncompiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError, format_error
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.runtime.oom import is_out_of_memory

# Number of parameters up to which kernel launches dominate a step and CUDA graphs are used.
CUDA_GRAPH_MAX_PARAMETERS = 50_000_000
# Backend of torch.compile; tests replace it by one that compiles quickly.
BACKEND = "inductor"


def should_compile(setting: bool | str, device: torch.device, world_size: int = 1) -> bool:
    """Returns whether to compile on a device under runtime.compile; `auto` compiles on a GPU, in one process.

    The hooks of data parallelism break the graph, so that `auto` would compile each part of it.

    Raises:
        ConfigError: if the setting is not auto, true or false.
    """
    if setting not in (True, False, "auto"):
        raise ConfigError(f"runtime.compile {setting!r}: give auto, true or false")
    return device.type == "cuda" and world_size == 1 if setting == "auto" else bool(setting)


def compile_module(run: Callable[..., Any], cuda_graphs: bool = False, fullgraph: bool = True) -> Any:
    """Compiles a module or function for static shapes.

    Args:
        cuda_graphs: whether to replay its kernel launches as a CUDA graph.
        fullgraph: whether more than one graph is an error.
    """
    if BACKEND != "inductor":
        return torch.compile(run, backend=BACKEND, dynamic=False, fullgraph=fullgraph)
    # fallback_random: the same random numbers as uncompiled.
    options: dict[str, Any] = {"triton.cudagraphs": cuda_graphs, "fallback_random": True}
    return torch.compile(run, dynamic=False, fullgraph=fullgraph, options=options)


def compiler_errors() -> tuple[type[Exception], ...]:
    """Returns the classes of errors of torch.compile, whose import takes a second."""
    return torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit


class CompiledUpdate:
    """A function that changes tensors in place, compiled, or left uncompiled if that fails and is not required.

    Compilation fails before anything is changed.
    """

    def __init__(self, run: Callable[..., None], required: bool) -> None:
        self.run, self.required = run, required
        self.compiled: Callable[..., None] | None = compile_module(run)

    def __call__(self, *arguments: Any) -> None:
        if self.compiled is not None:
            try:
                self.compiled(*arguments)
                return
            except compiler_errors() as error:
                if self.required:
                    raise IncompatibleError(
                        f"runtime.compile=true, but the optimizer cannot be compiled here ({format_error(error)}): give "
                        "auto or false"
                    ) from None
                self.compiled = None
        self.run(*arguments)


class CompiledLoss:
    """A loss module compiled to one graph, or left uncompiled if that fails and is not required.

    Args:
        kernel: the kernel that its attention uses.
        required: whether a failure is an error.

    Attributes:
        status: "one graph", "one graph, CUDA graphs", or "not compiled (<reason>)".

    Raises:
        IncompatibleError: on the first call, if compilation is required and fails.
    """

    def __init__(
        self, loss_module: nn.Module, kernel: KernelDispatcher, use_cuda_graphs: bool, required: bool
    ) -> None:
        self.loss_module, self.kernel = loss_module, kernel
        self.use_cuda_graphs, self.required = use_cuda_graphs, required
        self.status = "one graph, CUDA graphs" if use_cuda_graphs else "one graph"
        self._run: Callable[..., Tensor] = compile_module(loss_module, use_cuda_graphs)
        self._first_call = self._first_backward = True

    def __call__(self, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> Tensor:
        batch, reason = (ids_BT, target_index_N, target_N), ""
        if self._first_call:
            self._first_call = False
            reason = self._try_filling(*batch)
            if not reason and "dense" in self.kernel.ran.split("+") and not self.required:
                reason = "dense would be code for every few rows"
        if not reason and self._first_backward and torch.is_grad_enabled():
            reason = self._try_backward(*batch)
        if not reason:
            try:
                return self._run(*batch)
            except compiler_errors() as error:
                reason = format_error(error)
        if self.required:
            raise IncompatibleError(
                f"runtime.compile=true, but this training is not one graph here ({reason}): give auto or false"
            )
        self.status, self.use_cuda_graphs, self._run = f"not compiled ({reason})", False, self.loss_module
        self._first_backward = False
        return self._run(*batch)

    def _try_filling(self, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> str:
        """Fills the caches; returns the reason if memory is short for the logits of one sequence, written out."""
        try:
            fill_caches(self.loss_module, ids_BT, target_index_N, target_N)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return "its first pass, which writes out the logits of a sequence, runs out of memory"
        return ""

    def _try_backward(self, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> str:
        """Runs one extra forward and backward pass to trigger compilation; returns the reason if it fails."""
        self._first_backward, skips = False, torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
        parameters = [one for one in self.loss_module.parameters() if one.requires_grad]
        try:
            with preserve_rng_state(ids_BT.device):
                torch.autograd.grad(
                    self._run(ids_BT, target_index_N, target_N), parameters, allow_unused=True
                )
        except Exception as error:  # of the compiler, or of the launch of compiled code
            if is_out_of_memory(error):
                raise
            return format_error(error)
        if self.use_cuda_graphs and torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] > skips:
            self.status, self.use_cuda_graphs = "one graph", False
        return ""


def fill_caches(loss_module: nn.Module, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> None:
    """Runs one sequence uncompiled, in training and in evaluation mode.

    Schemes and kernels cache tables on the geometry. Made here, outside of any graph, they are inputs of the compiled
    code, which then needs no second compilation, and no CUDA graph overwrites them. FlexAttention is not compiled for
    this pass: it writes out the logits of the one sequence, and its warning about that is suppressed.
    """
    training = loss_module.training
    with (
        preserve_rng_state(ids_BT.device),
        torch.compiler.set_stance("force_eager"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        for mode in (True, False):
            loss_module.train(mode)
            with torch.set_grad_enabled(mode):
                loss_module(ids_BT[:1], torch.zeros_like(target_index_N[:1]), target_N[:1])
    loss_module.train(training)


def preserve_rng_state(device: torch.device) -> AbstractContextManager:
    """Returns a context that restores the random state of the CPU and the device on exit."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def free_compiled_code(device: torch.device) -> None:
    """Frees the compiled code and CUDA graph memory of a finished training: one worker runs many trainings."""
    if device.type == "cuda":
        torch.compiler.reset()
