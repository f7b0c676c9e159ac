"""The lines that need a GPU: compiled training, what a scheme costs there, long evaluation, attention alone.

Both sides of a pair wait for the device before the clock stops. Schemes are timed in two of the layers of GPT-2
small's shape, whose other ten are no different. What there is no time for is listed and not measured.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from posbench.benchmark.evaluation import QUESTION, QUESTIONS, VALUE, ids
from posbench.benchmark.line import Line
from posbench.benchmark.models import BenchmarkShape, plain, with_scheme
from posbench.benchmark.paired import LEAST_PAIRS, Ratio, Work, of_pairs, time_paired
from posbench.benchmark.steps import step_of
from posbench.config import hydra_app
from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data.corpus import open_corpus
from posbench.errors import format_error
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.kernels.flex import flex
from posbench.kernels.sdpa_backends import SDPA_AUTOTUNER
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT, Size
from posbench.position.call import AttentionCall
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.training.trainer import Trainer

DEVICE = "cuda"
# No other line is begun after these.
MINUTES = 7.5
BASE = BenchmarkShape(n_layers=12, d_model=768, n_heads=12, seq_len=1024, batch_size=32, vocab_size=50304)
SMALL = BenchmarkShape(n_layers=4, d_model=256, n_heads=4, seq_len=256, batch_size=16)
PART = replace(BASE, n_layers=2)
CHOSEN = hydra_app.load_group("gpu")["benchmark"]
READ = 16384
ATTENDED = (4, 16, 8192, 64)
CONTEXT, RETRIEVAL = 65536, BenchmarkShape(n_layers=2, d_model=512, n_heads=8, seq_len=1024, batch_size=1)


@dataclass(frozen=True)
class Planned:
    """A line before it is measured."""

    what: str
    peer: str
    goal: float
    measure: Callable[[float], Ratio]
    least: bool = False
    unit: str = "ms"


def lines(seconds: float) -> Iterator[Line]:
    """All of them; without a GPU, or time, skipped."""
    until = time.monotonic() + 60 * MINUTES
    for one in planned():
        line = Line(one.what, one.peer, one.goal, None, one.unit, least=one.least)
        if not torch.cuda.is_available():
            yield replace(line, skipped="no GPU")
            continue
        if time.monotonic() > until:
            yield replace(line, skipped=f"no time left after {MINUTES:g} minutes")
            continue
        try:
            yield replace(line, ratio=one.measure(seconds))
        except Exception as error:  # of a compiler, or a device: the other lines are still to be seen
            yield replace(line, failure=format_error(error))


def planned() -> Iterator[Planned]:
    """What is measured, the dearest last."""
    compiled = "the same compiled in plain PyTorch: SDPA, cached rotary tables, nothing else"
    what = f"compiled training step in bfloat16, {BASE}, vocabulary {BASE.vocab_size}"
    yield Planned(what, "tokens a second, at least", 475e3, tokens_a_second, least=True, unit="tokens/s")
    yield Planned(what, compiled, 0.95, partial(beside_plain, BASE))
    small = f"compiled training step in bfloat16, {SMALL}"
    yield Planned(small, f"{compiled}, no CUDA graphs", 0.6, partial(beside_plain, SMALL))
    best = "the fastest SDPA backend"
    shape = " x ".join(map(str, ATTENDED))
    yield Planned(f"flex, causal, forward, {shape}", best, 1 / 0.75, partial(attention, False))
    yield Planned(f"flex, causal, forward and backward, {shape}", best, 1 / 0.65, partial(attention, True))
    for name, goal in CHOSEN["extensions"].items():
        what = (
            f"evaluation of {name} at {READ} tokens in bfloat16: {PART.n_layers} layers, width {PART.d_model}"
        )
        yield Planned(what, "the same with plain RoPE", goal, partial(extended, name))
    what = f"retrieval: {QUESTIONS} questions of {QUESTION} + {VALUE} tokens over {CONTEXT}"
    peer = "per-question cached generation, same model: each question prefills its context"
    yield Planned(f"{what} ({RETRIEVAL.n_layers} layers, width {RETRIEVAL.d_model})", peer, 1 / 30, retrieval)
    for name, goal in CHOSEN["schemes"].items():
        what = f"training step in bfloat16, {name} by flex: {PART}"
        yield Planned(what, "the same with plain RoPE", goal, partial(beside_rope, name))


def tokens_a_second(seconds: float) -> Ratio:
    """Of our step alone: there is no peer, and a least."""
    step = waited(our_step(BASE))
    for _ in range(3):
        step()
    rates: list[float] = []
    until = time.perf_counter() + seconds
    while len(rates) < LEAST_PAIRS or time.perf_counter() < until:
        began = time.perf_counter()
        step()
        rates.append(BASE.batch_size * BASE.seq_len / (time.perf_counter() - began))
    return replace(of_pairs(np.stack([rates, np.ones(len(rates))], 1)), theirs=math.nan)


def beside_plain(shape: BenchmarkShape, seconds: float) -> Ratio:
    """Our compiled step as a training has it, and the plain model's."""
    precision = partial(torch.autocast, DEVICE, torch.bfloat16)
    peer = step_of(plain, shape, precision, DEVICE, compiled=True)
    return time_paired(waited(our_step(shape)), waited(peer), seconds, warm=3)


def beside_rope(name: str, seconds: float) -> Ratio:
    """A scheme's step through FlexAttention, and rope's through what it takes by itself."""
    ours, theirs = our_step(PART, name, "flex"), our_step(PART)
    return time_paired(waited(ours), waited(theirs), seconds, warm=3)


@cache
def our_step(shape: BenchmarkShape, scheme: str = CHOSEN["plain"], kernel: str = "auto") -> Work:
    """A step of a training with everything that belongs to it, by AdamW as the peers'; compiled once."""
    data = hydra_app.to_dataclass(DataSettings, hydra_app.load_group("data")["sources"], "")
    own = open_corpus(replace(data), Path(RuntimeSettings().cache_dir)).vocabulary
    # Ids that no text has make the vocabulary as large as a peer's.
    data = replace(data, num_keys=own.num_keys + shape.vocab_size - own.vocab_size)
    runtime = RuntimeSettings(
        device=DEVICE, kernel=kernel, results_dir=tempfile.gettempdir(), wandb_mode="disabled", compile="auto"
    )
    settings = ModelSettings(
        SchemeSettings(scheme, hydra_app.load_group("scheme")[scheme]["build"]),
        SizeSettings("benchmark", shape.n_layers, shape.d_model, shape.n_heads),
        data,
        TrainSettings(
            seq_len=shape.seq_len,
            steps=1_000_000,
            batch_size=shape.batch_size,
            synthetic_fraction=0.0,
            optimizer="adamw",
            dtype="bfloat16",
        ),
    )
    corpus = open_corpus(data, Path(runtime.cache_dir))
    trainer = Trainer(settings, corpus, None, runtime)
    steps = itertools.count()
    return lambda: trainer.step(next(steps))


def attention(backward: bool, seconds: float) -> Ratio:
    """FlexAttention without a term, and the fastest backend, on the same tensors."""
    batch, heads, length, dims = ATTENDED
    q, k, v, slope = torch.randn(4, batch, heads, length, dims, device=DEVICE, dtype=torch.bfloat16).unbind()
    leaves = [x.detach().requires_grad_(backward) for x in (q, k, v)]
    scale = dims**-0.5
    call = AttentionCall(
        leaves[0], leaves[1], leaves[2], scale, Geometry.from_range(0, length, device=DEVICE)
    )

    def whole(forward: Callable[[], torch.Tensor]) -> Work:
        def work() -> object:
            with torch.set_grad_enabled(backward):
                out = forward()
            return torch.autograd.grad(out, leaves, slope) if backward else out

        return waited(work)

    ours = whole(lambda: flex(call)[0])
    return time_paired(ours, whole(lambda: SDPA_AUTOTUNER(leaves[0], leaves[1], leaves[2], scale)), seconds)


def extended(name: str, seconds: float) -> Ratio:
    """One long text read under an extension, and under the model's own scheme."""
    text = ids(READ + 1)
    prompt = Prompt(text[:-64], text[None, -64:], 64)
    ours, theirs = lm_of(PART, name), lm_of(PART)
    return time_paired(
        waited(lambda: list(ours.loglikelihood([prompt]))),
        waited(lambda: list(theirs.loglikelihood([prompt]))),
        seconds,
    )


def retrieval(seconds: float) -> Ratio:
    """As the CPU's line, over a context of another kind of length."""
    lm = lm_of(RETRIEVAL)
    prompt = Prompt(ids(CONTEXT), ids(QUESTIONS, QUESTION + VALUE), VALUE)
    alone = [
        Prompt(prompt.context, one[None, :QUESTION], 0, max_new_tokens=VALUE) for one in prompt.continuations
    ]

    def one_by_one() -> None:
        for question in alone:
            list(lm.generate([question]))

    return time_paired(waited(lambda: list(lm.loglikelihood([prompt]))), waited(one_by_one), seconds, warm=1)


def lm_of(shape: BenchmarkShape, extension: str = "") -> NativeLM:
    """An untrained RoPE model in bfloat16, as evaluation runs it; extended for READ tokens."""
    model = with_scheme(hydra_app.load_group("scheme")[CHOSEN["plain"]]["build"])(shape)[0].to(DEVICE)
    assert isinstance(model, GPT)
    if extension:
        known = Size(shape.n_layers, shape.d_model, shape.n_heads).shape(shape.seq_len)
        settings = hydra_app.load_group("extension")[extension]["build"]
        model = model.with_scheme(
            instantiate(settings, Extension, model.scheme, ExtensionContext(known, READ))
        )
    precision = torch.autocast(DEVICE, torch.bfloat16)
    return NativeLM(model, shape.seq_len, KernelDispatcher("auto"), precision, 65536)


def waited(work: Work) -> Work:
    """The work, and the device's."""

    def both() -> None:
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return both
