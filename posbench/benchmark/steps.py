"""Training steps: compared with other implementations, of every scheme compared with RoPE, and in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.benchmark.line import Line
from posbench.benchmark.models import (
    BenchmarkShape,
    Maker,
    gpt2,
    nanogpt,
    ours,
    plain,
    version,
    with_scheme,
    x_transformers,
)
from posbench.benchmark.paired import time_paired, time_paired_processes
from posbench.config import hydra_app
from posbench.errors import unknown
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT
from posbench.position.biases import AttentionBias, CompositeBias, DistanceBias, SeparableBias
from posbench.position.call import AttentionCall
from posbench.position.recurrence import Recurrence
from posbench.runtime.allocator import keep_freed_memory
from posbench.training.cross_entropy import cross_entropy

LARGE_VOCABULARY = BenchmarkShape(
    n_layers=6, d_model=384, n_heads=6, seq_len=256, batch_size=4, vocab_size=8192
)
SHAPES = (
    BenchmarkShape(n_layers=4, d_model=256, n_heads=4, seq_len=256, batch_size=8),
    BenchmarkShape(n_layers=3, d_model=96, n_heads=6, seq_len=64, batch_size=48),  # of the demo
    LARGE_VOCABULARY,
)
# Half the depth and a quarter of the batch of SHAPES[0], so that fifty schemes take minutes.
SCHEMES = BenchmarkShape(n_layers=2, d_model=256, n_heads=4, seq_len=256, batch_size=4)
LONG = BenchmarkShape(n_layers=2, d_model=256, n_heads=4, seq_len=1024, batch_size=1)
PAIRS = 7


def peers(seconds: float) -> Iterator[Line]:
    """Times a step in float32: posbench's RoPE model and models of the same shape elsewhere, each in its own process."""
    others: dict[str, tuple[Maker, float]] = {
        f"{version('torch')} nanoGPT: learned positions, LayerNorm, tied head, no biases": (nanogpt, 1.0),
        f"{version('transformers')} GPT2LMHeadModel, sdpa": (gpt2, 0.85),
        f"{version('x-transformers')} Decoder, rotary, flash": (x_transformers, 0.9),
        f"{version('torch')} SDPA, cached rotary tables, nothing else": (plain, 1.0),
    }
    for shape in SHAPES:
        for peer, (make, goal) in others.items():
            if shape is LARGE_VOCABULARY and make is not nanogpt:
                continue
            mine, other = partial(step_of, ours, shape, keep_memory=True), partial(step_of, make, shape)
            yield Line(f"training step: {shape}", peer, goal, time_paired_processes(mine, other, seconds))


def schemes(seconds: float, names: Sequence[str] = ()) -> Iterator[Line]:
    """Times the step of each scheme of configs/scheme beside RoPE's; the goal follows from its components.

    Raises:
        ConfigError: for a name without a scheme.
    """
    settings = hydra_app.load_group("scheme")
    for name in names:
        if name not in settings:
            raise unknown("scheme", name, settings)
    rope = {shape: step_of(ours, shape) for shape in (SCHEMES, LONG)}
    for name in names or settings:
        make = with_scheme(settings[name]["build"])
        components = components_of(make, SCHEMES)
        for shape in (SCHEMES, LONG) if components == {"distances"} else (SCHEMES,):
            ratio = time_paired(step_of(make, shape), rope[shape], seconds, warm=1, least=PAIRS)
            goal = 1.6 if shape is LONG else goal_of(components)
            what = f"training step, {name} ({', '.join(sorted(components)) or 'nothing added'}): {shape}"
            yield Line(what, "the same with plain RoPE", goal, ratio)


def bfloat16(seconds: float) -> Iterator[Line]:
    """Times the step under autocast, on a CPU that multiplies bfloat16."""
    shape = SHAPES[0]
    what, peer = f"training step in bfloat16 by autocast: {shape}", "the same in float32"
    if not multiplies_bfloat16():
        yield Line(what, peer, 0.65, None, skipped="this CPU has neither avx512_bf16 nor amx_bf16")
        return
    fast = step_of(ours, shape, lambda: torch.autocast("cpu", torch.bfloat16))
    yield Line(what, peer, 0.65, time_paired(fast, step_of(ours, shape), seconds))


def step_of(
    make: Maker,
    shape: BenchmarkShape,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    device: str = "cpu",
    compiled: bool = False,
    keep_memory: bool = False,
) -> Callable[[], None]:
    """Returns one training step as a function: forward, backward, clipping and AdamW, on the same ids for every model.

    The loss is computed by the trainer's function for models of posbench, by torch's for others.

    Args:
        precision: context of the forward pass and the loss.
        compiled: compiles the forward pass and the loss together, as the trainer does.
        keep_memory: sets the allocator of the process as a job does.
    """
    if keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    ids = torch.randint(shape.vocab_size, (shape.batch_size, shape.seq_len + 1)).to(device)
    module, model = make(shape)
    module.to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def loss_of(ids: Tensor) -> Tensor:
        targets = ids[:, 1:].flatten()
        if isinstance(module, GPT):
            hidden = module(ids[:, :-1])[0].flatten(0, 1)
            return cross_entropy(hidden, module.head.weight, targets) / len(targets)
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), targets)

    compute_loss = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def step() -> None:
        with precision():
            loss = compute_loss(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class RecordingKernel:
    """A kernel that records the components of a scheme on which its speed depends."""

    def __init__(self) -> None:
        self.kernel, self.components, self.calls = KernelDispatcher("auto"), set[str](), 0

    def __call__(self, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        self.calls += 1
        self.components |= {structure_of(bias) for bias in terms_of(call.bias)}
        self.components |= {"values by pair"} if call.relative_values is not None else set()
        self.components |= {"masks"} if call.masks else set()
        self.components |= {"log-sum-exp"} if call.with_lse else set()
        self.components |= {"wide queries"} if call.q_BHTE.shape[-1] > call.v_BHSD.shape[-1] else set()
        return self.kernel(call)


def terms_of(bias: AttentionBias | None) -> tuple[AttentionBias, ...]:
    """The terms of a sum, or the bias itself."""
    if bias is None:
        return ()
    return (
        tuple(one for part in bias.parts for one in terms_of(part))
        if isinstance(bias, CompositeBias)
        else (bias,)
    )


def structure_of(bias: AttentionBias) -> str:
    """The structure of a bias in a word or two."""
    if bias.needs_full_rows:
        return "whole rows"
    if isinstance(bias, DistanceBias):
        return "distances"
    return "separable" if isinstance(bias, SeparableBias) else "content by pair"


def components_of(make: Maker, shape: BenchmarkShape) -> set[str]:
    """The components that a model's scheme passes to its kernel."""
    model, recorder = make(shape)[0], RecordingKernel()
    assert isinstance(model, GPT)
    model(torch.zeros(1, 16, dtype=torch.long), kernel=recorder)
    if recorder.calls < len(model.blocks):  # a scheme without pairs, or a hybrid
        recurrent = any(isinstance(module, Recurrence) for module in model.scheme.modules())
        recorder.components.add("recurrence" if recurrent else "no pairs")
    if recorder.calls > len(model.blocks) and not recorder.components:
        return {"several softmaxes"}
    # A scheme with parameters that adds nothing to pairs computes its positions in every step.
    computed = not recorder.components and any(True for _ in model.scheme.parameters())
    return {"trained positions"} if computed else recorder.components


def goal_of(components: set[str]) -> float:
    """Largest ratio of the step at 256 tokens to RoPE's. `recurrences` compares recurrences with transformers'."""
    if "recurrence" in components:
        return 2.0
    if "whole rows" in components:
        return 1.7
    if components & {"content by pair", "values by pair", "wide queries", "several softmaxes", "no pairs"}:
        return 1.35
    return 1.15 if components & {"separable", "log-sum-exp", "trained positions"} else 1.05


def multiplies_bfloat16() -> bool:
    """Returns whether /proc/cpuinfo lists bfloat16 products; False where there is no such file."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
