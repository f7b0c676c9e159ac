"""Training steps: beside other implementations, of every scheme beside RoPE's, and in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.benchmark.line import Line
from posbench.benchmark.models import (
    BenchmarkShape,
    Maker,
    gpt2,
    ours,
    plain,
    version,
    with_scheme,
    x_transformers,
)
from posbench.benchmark.paired import time_paired
from posbench.config import hydra_app
from posbench.errors import unknown
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT
from posbench.position.biases import AttentionBias, CompositeBias, DistanceBias, SeparableBias
from posbench.position.call import AttentionCall

SHAPES = (
    BenchmarkShape(n_layers=4, d_model=256, n_heads=4, seq_len=256, batch_size=8),
    BenchmarkShape(n_layers=3, d_model=96, n_heads=6, seq_len=64, batch_size=48),  # the demo's
)
# Half the depth and a quarter of the batch of SHAPES[0], so that fifty schemes take minutes.
SCHEMES = BenchmarkShape(n_layers=2, d_model=256, n_heads=4, seq_len=256, batch_size=4)
LONG = BenchmarkShape(n_layers=2, d_model=256, n_heads=4, seq_len=1024, batch_size=1)
PAIRS = 7


def peers(seconds: float) -> Iterator[Line]:
    """Forward, backward and AdamW in float32, of our plain RoPE model and of the same shape elsewhere."""
    others: dict[str, tuple[Maker, float]] = {
        f"{version('transformers')} GPT2LMHeadModel, sdpa": (gpt2, 0.97),
        f"{version('x-transformers')} Decoder, rotary, flash": (x_transformers, 0.97),
        f"{version('torch')} SDPA, cached rotary tables, nothing else": (plain, 1.02),
    }
    for shape in SHAPES:
        for peer, (make, goal) in others.items():
            ratio = time_paired(step_of(ours, shape), step_of(make, shape), seconds)
            yield Line(f"training step: {shape}", peer, goal, ratio)


def schemes(seconds: float, names: Sequence[str] = ()) -> Iterator[Line]:
    """The step of each scheme of configs/scheme beside RoPE's, with a goal by what it is made of."""
    settings = hydra_app.load_group("scheme")
    for name in names:
        if name not in settings:
            raise unknown("scheme", name, settings)
    for name in names or settings:
        make = with_scheme(settings[name]["build"])
        made_of = structure(make, SCHEMES)
        for shape in (SCHEMES, LONG) if made_of == {"distances"} else (SCHEMES,):
            ratio = time_paired(step_of(make, shape), step_of(ours, shape), seconds, least=PAIRS)
            goal = 1.6 if shape is LONG else goal_of(made_of)
            what = f"training step, {name} ({', '.join(sorted(made_of)) or 'nothing added'}): {shape}"
            yield Line(what, "the same with plain RoPE", goal, ratio)


def bfloat16(seconds: float) -> Iterator[Line]:
    """The step under autocast, where the CPU multiplies bfloat16."""
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
) -> Callable[[], None]:
    """One training step, to be called again and again; every model gets the same ids, loss and optimizer."""
    torch.manual_seed(0)
    module, model = make(shape)
    module.to(device)
    if compiled:
        model = torch.compile(model, dynamic=False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(shape.vocab_size, (shape.batch_size, shape.seq_len + 1)).to(device)

    def step() -> None:
        with precision():
            logits = model(ids[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Seen:
    """A kernel that notes what it is given: what a scheme is made of, as far as speed can tell."""

    def __init__(self) -> None:
        self.kernel, self.made_of, self.called = KernelDispatcher("auto"), set[str](), False

    def __call__(self, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        self.called = True
        self.made_of |= {kind(bias) for bias in parts(call.bias)}
        self.made_of |= {"values by pair"} if call.relative_values is not None else set()
        self.made_of |= {"masks"} if call.masks else set()
        self.made_of |= {"log-sum-exp"} if call.with_lse else set()
        self.made_of |= {"wide queries"} if call.q_BHTE.shape[-1] > call.v_BHSD.shape[-1] else set()
        return self.kernel(call)


def parts(bias: AttentionBias | None) -> tuple[AttentionBias, ...]:
    """The terms that a term adds."""
    if bias is None:
        return ()
    return (
        tuple(one for part in bias.parts for one in parts(part))
        if isinstance(bias, CompositeBias)
        else (bias,)
    )


def kind(bias: AttentionBias) -> str:
    """A term in a word."""
    if bias.needs_full_rows:
        return "whole rows"
    if isinstance(bias, DistanceBias):
        return "distances"
    return "separable" if isinstance(bias, SeparableBias) else "content by pair"


def structure(make: Maker, shape: BenchmarkShape) -> set[str]:
    """What a model's scheme gives to its kernels."""
    model, seen = make(shape)[0], Seen()
    assert isinstance(model, GPT)
    model(torch.zeros(1, 16, dtype=torch.long), kernel=seen)
    if not seen.called:
        return {"no pairs"}
    # What adds nothing to pairs and has parameters computes where tokens are, anew in each step.
    computed = not seen.made_of and any(True for _ in model.scheme.parameters())
    return {"trained positions"} if computed else seen.made_of


def goal_of(made_of: set[str]) -> float:
    """How much longer than RoPE's a step may take at 256 tokens."""
    if "whole rows" in made_of:
        return 1.8
    if made_of & {"content by pair", "values by pair", "wide queries", "trained positions", "no pairs"}:
        return 1.35
    return 1.15 if made_of & {"separable", "log-sum-exp"} else 1.05


def multiplies_bfloat16() -> bool:
    """Whether the CPU says so; where nobody can tell, it does not."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
