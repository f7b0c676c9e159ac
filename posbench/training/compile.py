"""torch.compile around what is trained: one graph or none.

The Python between two graphs is what would be saved, and a value that leaves the device between them is one
compilation for each value; so `auto` compiles what is one graph, runs the rest as it is, and says so in the facts of
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
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from posbench.errors import ConfigError, IncompatibleError, said
from posbench.kernels.dispatcher import Recording
from posbench.runtime.oom import is_shortage

# Parameters up to which a step is bound by its launches, and CUDA graphs replay them.
LAUNCH_BOUND = 50_000_000
# What makes the code; tests take one that compiles in no time.
BACKEND = "inductor"


def wanted(setting: bool | str, device: torch.device) -> bool:
    """Whether a setting asks for compilation on a device; `auto` is yes on a GPU alone.

    Raises:
        ConfigError: if it is none.
    """
    if setting not in (True, False, "auto"):
        raise ConfigError(f"runtime.compile {setting!r}: give auto, true or false")
    return device.type == "cuda" if setting == "auto" else bool(setting)


def compiled(run: Callable[..., Any], graphs: bool = False, whole: bool = True) -> Any:
    """`run` for one shape at a time.

    Args:
        graphs: replay its launches as a CUDA graph.
        whole: one graph, or an error.
    """
    if BACKEND != "inductor":
        return torch.compile(run, backend=BACKEND, dynamic=False, fullgraph=whole)
    # Random numbers are those that it would draw uncompiled.
    options: dict[str, Any] = {"triton.cudagraphs": graphs, "fallback_random": True}
    return torch.compile(run, dynamic=False, fullgraph=whole, options=options)


class Compiled:
    """A learner in one graph.

    Args:
        kernel: what its attention runs through.

    Attributes:
        how: "one graph", "one graph, CUDA graphs", or "not compiled" and why.
    """

    def __init__(self, learner: nn.Module, kernel: Recording, graphs: bool, insists: bool) -> None:
        self.learner, self.kernel, self.graphs, self.insists = learner, kernel, graphs, insists
        self.how = "one graph, CUDA graphs" if graphs else "one graph"
        self._run: Callable[..., Tensor] = compiled(learner, graphs)
        self._fresh = self._untrained = True

    def __call__(self, ids_BT: Tensor, place_N: Tensor, target_N: Tensor) -> Tensor:
        batch, why = (ids_BT, place_N, target_N), ""
        if self._fresh:
            self._fresh = False
            rehearse(self.learner, *batch)
            if "dense" in self.kernel.ran.split("+") and not self.insists:
                why = "dense would be code for every few rows"
        if not why and self._untrained and torch.is_grad_enabled():
            why = self._there_and_back(*batch)
        if not why:
            try:
                return self._run(*batch)
            except TorchDynamoException as error:
                why = said(error)
        if self.insists:
            raise IncompatibleError(
                f"runtime.compile=true, but this training is not one graph here ({why}): give auto or false"
            )
        self.how, self.graphs, self._run = f"not compiled ({why})", False, self.learner
        self._untrained = False
        return self._run(*batch)

    def _there_and_back(self, ids_BT: Tensor, place_N: Tensor, target_N: Tensor) -> str:
        """Why a step cannot be made, whose gradients are thrown away: the way back is compiled on the first one."""
        self._untrained, before = False, counters["inductor"]["cudagraph_skips"]
        parameters = [one for one in self.learner.parameters() if one.requires_grad]
        try:
            with drawn_apart(ids_BT.device):
                torch.autograd.grad(self._run(ids_BT, place_N, target_N), parameters, allow_unused=True)
        except Exception as error:  # of the compiler, or of what it made when that is launched
            if is_shortage(error):
                raise
            return said(error)
        if self.graphs and counters["inductor"]["cudagraph_skips"] > before:
            self.how, self.graphs = "one graph", False
        return ""


def rehearse(learner: nn.Module, ids_BT: Tensor, place_N: Tensor, target_N: Tensor) -> None:
    """One sequence, uncompiled, as in training and as in validation.

    What schemes and kernels keep on the geometry is made here, outside of any graph: the compiled code reads it,
    needs no second compilation once it is there, and no CUDA graph overwrites it. Nothing else is compiled for it:
    FlexAttention writes out the logits of one sequence, and says that this is slow.
    """
    training = learner.training
    with drawn_apart(ids_BT.device), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for mode in (True, False):
            learner.train(mode)
            with torch.set_grad_enabled(mode):
                learner(ids_BT[:1], torch.zeros_like(place_N[:1]), target_N[:1])
    learner.train(training)


def drawn_apart(device: torch.device) -> AbstractContextManager:
    """What is drawn within leaves no trace."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def forget(device: torch.device) -> None:
    """Free the code of a training that is over, and the memory of its CUDA graphs: a worker has many."""
    if device.type == "cuda":
        torch.compiler.reset()
