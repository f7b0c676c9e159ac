"""torch.compile around what is trained: one graph or none.

The Python between two graphs is what would be saved, and a value that leaves the device between them is one
compilation for each value; so `auto` compiles what is one graph, runs the rest as it is, and says so in the metadata of
the model. `true` insists. What the kernel `dense` runs is one graph, but one that has a part for every few rows of
every layer (12 layers over 32 x 1024 tokens: 1200; 8 of them take a minute to compile): `auto` leaves it too.
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

# Parameters up to which a step is bound by its launches, and CUDA graphs replay them.
LAUNCH_BOUND = 50_000_000
# What makes the code; tests take one that compiles in no time.
BACKEND = "inductor"


def should_compile(setting: bool | str, device: torch.device) -> bool:
    """Whether a setting asks for compilation on a device; `auto` is yes on a GPU alone.

    Raises:
        ConfigError: if it is none.
    """
    if setting not in (True, False, "auto"):
        raise ConfigError(f"runtime.compile {setting!r}: give auto, true or false")
    return device.type == "cuda" if setting == "auto" else bool(setting)


def compile_module(run: Callable[..., Any], cuda_graphs: bool = False, fullgraph: bool = True) -> Any:
    """`run` for one shape at a time.

    Args:
        cuda_graphs: replay its launches as a CUDA graph.
        fullgraph: one graph, or an error.
    """
    if BACKEND != "inductor":
        return torch.compile(run, backend=BACKEND, dynamic=False, fullgraph=fullgraph)
    # Random numbers are those that it would draw uncompiled.
    options: dict[str, Any] = {"triton.cudagraphs": cuda_graphs, "fallback_random": True}
    return torch.compile(run, dynamic=False, fullgraph=fullgraph, options=options)


class CompiledLoss:
    """A loss module in one graph.

    Args:
        kernel: what its attention runs through.

    Attributes:
        how: "one graph", "one graph, CUDA graphs", or "not compiled" and why.
    """

    def __init__(
        self, loss_module: nn.Module, kernel: KernelDispatcher, use_cuda_graphs: bool, required: bool
    ) -> None:
        self.loss_module, self.kernel, self.use_cuda_graphs, self.required = (
            loss_module,
            kernel,
            use_cuda_graphs,
            required,
        )
        self.how = "one graph, CUDA graphs" if use_cuda_graphs else "one graph"
        self._run: Callable[..., Tensor] = compile_module(loss_module, use_cuda_graphs)
        self._fresh = self._untrained = True

    def __call__(self, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> Tensor:
        batch, why = (ids_BT, target_index_N, target_N), ""
        if self._fresh:
            self._fresh = False
            rehearse(self.loss_module, *batch)
            if "dense" in self.kernel.ran.split("+") and not self.required:
                why = "dense would be code for every few rows"
        if not why and self._untrained and torch.is_grad_enabled():
            why = self._there_and_back(*batch)
        if not why:
            try:
                return self._run(*batch)
            except torch._dynamo.exc.TorchDynamoException as error:
                why = format_error(error)
        if self.required:
            raise IncompatibleError(
                f"runtime.compile=true, but this training is not one graph here ({why}): give auto or false"
            )
        self.how, self.use_cuda_graphs, self._run = f"not compiled ({why})", False, self.loss_module
        self._untrained = False
        return self._run(*batch)

    def _there_and_back(self, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> str:
        """Why a step cannot be made, whose gradients are thrown away: the way back is compiled on the first one."""
        self._untrained, before = False, torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
        parameters = [one for one in self.loss_module.parameters() if one.requires_grad]
        try:
            with drawn_apart(ids_BT.device):
                torch.autograd.grad(
                    self._run(ids_BT, target_index_N, target_N), parameters, allow_unused=True
                )
        except Exception as error:  # of the compiler, or of what it made when that is launched
            if is_out_of_memory(error):
                raise
            return format_error(error)
        if self.use_cuda_graphs and torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] > before:
            self.how, self.use_cuda_graphs = "one graph", False
        return ""


def rehearse(loss_module: nn.Module, ids_BT: Tensor, target_index_N: Tensor, target_N: Tensor) -> None:
    """One sequence, uncompiled, as in training and as in validation.

    What schemes and kernels keep on the geometry is made here, outside of any graph: the compiled code reads it,
    needs no second compilation once it is there, and no CUDA graph overwrites it. Nothing else is compiled for it:
    FlexAttention writes out the logits of one sequence, and says that this is slow.
    """
    training = loss_module.training
    with drawn_apart(ids_BT.device), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for mode in (True, False):
            loss_module.train(mode)
            with torch.set_grad_enabled(mode):
                loss_module(ids_BT[:1], torch.zeros_like(target_index_N[:1]), target_N[:1])
    loss_module.train(training)


def drawn_apart(device: torch.device) -> AbstractContextManager:
    """What is drawn within leaves no trace."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def forget(device: torch.device) -> None:
    """Free the code of a training that is over, and the memory of its CUDA graphs: a worker has many."""
    if device.type == "cuda":
        torch.compiler.reset()
