"""Lines that need a GPU: compiled training, the cost of a scheme, long evaluation, attention alone.

Both sides of a pair synchronize the device before the clock stops. Schemes are timed in two layers of GPT-2 small's
shape. Lines that do not fit in the time are listed as skipped.
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
from typing import Any

import numpy as np
import torch

from posbench.benchmark.evaluation import QUESTION, QUESTIONS, VALUE, ids
from posbench.benchmark.line import Line
from posbench.benchmark.models import BenchmarkShape, as_lm, plain, with_scheme
from posbench.benchmark.paired import LEAST_PAIRS, Ratio, Work, of_pairs, time_paired
from posbench.benchmark.steps import step_of
from posbench.config import hydra_app
from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data.corpus import open_corpus
from posbench.errors import format_error
from posbench.instantiate import instantiate
from posbench.kernels.flex import flex
from posbench.kernels.sdpa_backends import SDPA_AUTOTUNER
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.model.gpt import Size
from posbench.position.call import AttentionCall
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.training.trainer import Trainer

DEVICE = "cuda"
# No line starts after this time.
MINUTES = 7.5
BASE = BenchmarkShape(n_layers=12, d_model=768, n_heads=12, seq_len=1024, batch_size=32, vocab_size=50304)
SMALL = BenchmarkShape(n_layers=4, d_model=256, n_heads=4, seq_len=256, batch_size=16)
PART = replace(BASE, n_layers=2)
SETTINGS = hydra_app.load_group("gpu")["benchmark"]
READ = 16384
ATTENDED = (4, 16, 8192, 64)
CONTEXT, RETRIEVAL = 65536, BenchmarkShape(n_layers=2, d_model=512, n_heads=8, seq_len=1024, batch_size=1)


@dataclass(frozen=True)
class PlannedLine:
    """A line before its measurement; attributes as those of Line."""

    what: str
    peer: str
    goal: float
    measure: Callable[[float], Ratio]
    least: bool = False
    unit: str = "ms"


def lines(seconds: float) -> Iterator[Line]:
    """Yields all lines; without a GPU or time they are skipped."""
    deadline = time.monotonic() + 60 * MINUTES
    for one in planned():
        line = Line(one.what, one.peer, one.goal, None, one.unit, least=one.least)
        if not torch.cuda.is_available():
            yield replace(line, skipped="no GPU")
            continue
        if time.monotonic() > deadline:
            yield replace(line, skipped=f"no time left after {MINUTES:g} minutes")
            continue
        try:
            yield replace(line, ratio=one.measure(seconds))
        except Exception as error:  # of a compiler or a device; the other lines go on
            yield replace(line, failure=format_error(error))


def planned() -> Iterator[PlannedLine]:
    """Yields all lines before measurement, the slowest last."""
    compiled = "the same compiled in plain PyTorch: SDPA, cached rotary tables, nothing else"
    what = f"compiled training step in bfloat16, {BASE}, vocabulary {BASE.vocab_size}"
    yield PlannedLine(what, "tokens a second, at least", 475e3, tokens_a_second, least=True, unit="tokens/s")
    yield PlannedLine(what, compiled, 1.0, partial(beside_plain, BASE))
    small = f"compiled training step in bfloat16, {SMALL}"
    yield PlannedLine(small, f"{compiled}, no CUDA graphs", 0.6, partial(beside_plain, SMALL))
    best = "the fastest SDPA backend"
    shape = " x ".join(map(str, ATTENDED))
    yield PlannedLine(f"flex, causal, forward, {shape}", best, 1 / 0.75, partial(attention, False))
    yield PlannedLine(
        f"flex, causal, forward and backward, {shape}", best, 1 / 0.65, partial(attention, True)
    )
    for name, goal in SETTINGS["extensions"].items():
        what = (
            f"evaluation of {name} at {READ} tokens in bfloat16: {PART.n_layers} layers, width {PART.d_model}"
        )
        yield PlannedLine(what, "the same with plain RoPE", goal, partial(extended, name))
    what = f"retrieval: {QUESTIONS} questions of {QUESTION} + {VALUE} tokens over {CONTEXT}"
    peer = "per-question cached generation, same model: each question prefills its context"
    yield PlannedLine(
        f"{what} ({RETRIEVAL.n_layers} layers, width {RETRIEVAL.d_model})", peer, 1 / 30, retrieval
    )
    for name, goal in SETTINGS["schemes"].items():
        what = f"training step in bfloat16, {name} by flex: {PART}"
        yield PlannedLine(what, "the same with plain RoPE", goal, partial(beside_rope, name))


def tokens_a_second(seconds: float) -> Ratio:
    """Measures the rate of posbench's step alone."""
    step = synchronized(our_step(BASE))
    for _ in range(3):
        step()
    rates: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(rates) < LEAST_PAIRS or time.perf_counter() < deadline:
        started = time.perf_counter()
        step()
        rates.append(BASE.batch_size * BASE.seq_len / (time.perf_counter() - started))
    return replace(of_pairs(np.stack([rates, np.ones(len(rates))], 1)), theirs=math.nan)


def beside_plain(shape: BenchmarkShape, seconds: float) -> Ratio:
    """Compares posbench's compiled training step with the plain model's."""
    precision = partial(torch.autocast, DEVICE, torch.bfloat16)
    peer = step_of(plain, shape, precision, DEVICE, compiled=True)
    return time_paired(synchronized(our_step(shape)), synchronized(peer), seconds, warm=3)


def beside_rope(name: str, seconds: float) -> Ratio:
    """Compares the step of a scheme through FlexAttention with RoPE's through the kernel of its choice."""
    ours, theirs = our_step(PART, name, "flex"), our_step(PART)
    return time_paired(synchronized(ours), synchronized(theirs), seconds, warm=3)


@cache
def our_step(shape: BenchmarkShape, scheme: str = SETTINGS["plain"], kernel: str = "auto") -> Work:
    """A complete training step as the Trainer runs it, with AdamW as for the peers; compiled once."""
    data = hydra_app.to_dataclass(DataSettings, hydra_app.load_group("data")["sources"], "")
    vocabulary = open_corpus(replace(data), Path(RuntimeSettings().cache_dir)).vocabulary
    # Unused ids extend the vocabulary to the size of the peer's.
    data = replace(data, num_keys=vocabulary.num_keys + shape.vocab_size - vocabulary.vocab_size)
    runtime = RuntimeSettings(
        device=DEVICE, kernel=kernel, results_dir=tempfile.gettempdir(), tracker="none", compile="auto"
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
    """Compares FlexAttention without a bias with the fastest SDPA backend, on the same tensors."""
    batch, heads, length, dims = ATTENDED
    q, k, v, slope = torch.randn(4, batch, heads, length, dims, device=DEVICE, dtype=torch.bfloat16).unbind()
    leaves = [x.detach().requires_grad_(backward) for x in (q, k, v)]
    scale = dims**-0.5
    call = AttentionCall(
        leaves[0], leaves[1], leaves[2], scale, Geometry.from_range(0, length, device=DEVICE)
    )

    def with_backward(forward: Callable[[], torch.Tensor]) -> Work:
        def work() -> object:
            with torch.set_grad_enabled(backward):
                out = forward()
            return torch.autograd.grad(out, leaves, slope) if backward else out

        return synchronized(work)

    ours = with_backward(lambda: flex(call)[0])
    return time_paired(
        ours, with_backward(lambda: SDPA_AUTOTUNER(leaves[0], leaves[1], leaves[2], scale)), seconds
    )


def extended(name: str, seconds: float) -> Ratio:
    """Compares one long text under an extension with the same under the model's own scheme."""
    text = ids(READ + 1)
    prompt = Prompt(text[:-64], text[None, -64:], 64)
    ours, theirs = lm_of(PART, name), lm_of(PART)
    return time_paired(
        synchronized(lambda: list(ours.loglikelihood([prompt]))),
        synchronized(lambda: list(theirs.loglikelihood([prompt]))),
        seconds,
    )


def retrieval(seconds: float) -> Ratio:
    """Compares as evaluation.retrieval does, over a context of CONTEXT tokens."""
    lm = lm_of(RETRIEVAL)
    prompt = Prompt(ids(CONTEXT), ids(QUESTIONS, QUESTION + VALUE), VALUE)
    single = [
        Prompt(prompt.context, one[None, :QUESTION], 0, max_new_tokens=VALUE) for one in prompt.continuations
    ]

    def one_by_one() -> None:
        for question in single:
            list(lm.generate([question]))

    return time_paired(
        synchronized(lambda: list(lm.loglikelihood([prompt]))), synchronized(one_by_one), seconds, warm=1
    )


def lm_of(shape: BenchmarkShape, extension: str = "") -> NativeLM:
    """An untrained RoPE model in bfloat16, wrapped as evaluation wraps it; with an extension, for READ tokens."""
    model: Any = with_scheme(hydra_app.load_group("scheme")[SETTINGS["plain"]]["build"])(shape)[0].to(DEVICE)
    if extension:
        known = Size(shape.n_layers, shape.d_model, shape.n_heads).shape(shape.seq_len)
        settings = hydra_app.load_group("extension")[extension]["build"]
        model = model.with_scheme(
            instantiate(settings, Extension, model.scheme, ExtensionContext(known, READ))
        )
    return as_lm(model, shape, partial(torch.autocast, DEVICE, torch.bfloat16), max_tokens_per_batch=65536)


def synchronized(work: Work) -> Work:
    """The function, followed by a wait for the device."""

    def both() -> None:
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return both
