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
from posbench.benchmark.models import Shape, plain, with_scheme
from posbench.benchmark.paired import LEAST_PAIRS, Ratio, Work, compare, of_pairs
from posbench.benchmark.steps import step_of
from posbench.config import hydra_app
from posbench.config.data import DataConfig
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data.corpus import open_corpus
from posbench.errors import said
from posbench.instantiate import build
from posbench.kernels.dispatcher import Recording
from posbench.kernels.flex import flex
from posbench.kernels.sdpa_backends import CHOICE
from posbench.lm.interface import Prompt
from posbench.lm.native import CheckpointSubject
from posbench.model.gpt import GPT, Size
from posbench.position.call import Pairs
from posbench.position.extension import Context
from posbench.position.geometry import Geometry
from posbench.training.trainer import Trainer

DEVICE = "cuda"
# No other line is begun after these.
MINUTES = 7.5
BASE = Shape(layers=12, width=768, heads=12, length=1024, batch=32, vocabulary=50304)
SMALL = Shape(layers=4, width=256, heads=4, length=256, batch=16)
PART = replace(BASE, layers=2)
CHOSEN = hydra_app.contents("gpu")["benchmark"]
READ = 16384
ATTENDED = (4, 16, 8192, 64)
CONTEXT, RETRIEVAL = 65536, Shape(layers=2, width=512, heads=8, length=1024, batch=1)


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
            yield replace(line, failure=said(error))


def planned() -> Iterator[Planned]:
    """What is measured, the dearest last."""
    compiled = "the same compiled in plain PyTorch: SDPA, cached rotary tables, nothing else"
    what = f"compiled training step in bfloat16, {BASE}, vocabulary {BASE.vocabulary}"
    yield Planned(what, "tokens a second, at least", 475e3, tokens_a_second, least=True, unit="tokens/s")
    yield Planned(what, compiled, 0.95, partial(beside_plain, BASE))
    small = f"compiled training step in bfloat16, {SMALL}"
    yield Planned(small, f"{compiled}, no CUDA graphs", 0.6, partial(beside_plain, SMALL))
    best = "the fastest SDPA backend"
    shape = " x ".join(map(str, ATTENDED))
    yield Planned(f"flex, causal, forward, {shape}", best, 1 / 0.75, partial(attention, False))
    yield Planned(f"flex, causal, forward and backward, {shape}", best, 1 / 0.65, partial(attention, True))
    for name, goal in CHOSEN["extensions"].items():
        what = f"evaluation of {name} at {READ} tokens in bfloat16: {PART.layers} layers, width {PART.width}"
        yield Planned(what, "the same with plain RoPE", goal, partial(extended, name))
    what = f"retrieval: {QUESTIONS} questions of {QUESTION} + {VALUE} tokens over {CONTEXT}"
    peer = "per-question cached generation, same model: each question prefills its context"
    yield Planned(f"{what} ({RETRIEVAL.layers} layers, width {RETRIEVAL.width})", peer, 1 / 30, retrieval)
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
        rates.append(BASE.batch * BASE.length / (time.perf_counter() - began))
    return replace(of_pairs(np.stack([rates, np.ones(len(rates))], 1)), theirs=math.nan)


def beside_plain(shape: Shape, seconds: float) -> Ratio:
    """Our compiled step as a training has it, and the plain model's."""
    precision = partial(torch.autocast, DEVICE, torch.bfloat16)
    peer = step_of(plain, shape, precision, DEVICE, compiled=True)
    return compare(waited(our_step(shape)), waited(peer), seconds, warm=3)


def beside_rope(name: str, seconds: float) -> Ratio:
    """A scheme's step through FlexAttention, and rope's through what it takes by itself."""
    ours, theirs = our_step(PART, name, "flex"), our_step(PART)
    return compare(waited(ours), waited(theirs), seconds, warm=3)


@cache
def our_step(shape: Shape, scheme: str = CHOSEN["plain"], kernel: str = "auto") -> Work:
    """A step of a training with everything that belongs to it, by AdamW as the peers'; compiled once."""
    data = hydra_app.typed(DataConfig, hydra_app.contents("data")["sources"], "")
    own = open_corpus(replace(data), Path(RuntimeSettings().cache)).vocabulary
    # Ids that no text has make the vocabulary as large as a peer's.
    data = replace(data, keys=own.keys + shape.vocabulary - own.size)
    runtime = RuntimeSettings(
        device=DEVICE, kernel=kernel, results=tempfile.gettempdir(), wandb="disabled", compile="auto"
    )
    settings = ModelSettings(
        SchemeSettings(scheme, hydra_app.contents("scheme")[scheme]["build"]),
        SizeSettings("benchmark", shape.layers, shape.width, shape.heads),
        data,
        TrainSettings(
            length=shape.length,
            steps=1_000_000,
            batch=shape.batch,
            records=0.0,
            optimizer="adamw",
            dtype="bfloat16",
        ),
    )
    corpus = open_corpus(data, Path(runtime.cache))
    # A folder that is not there: nothing to continue, and nothing is saved.
    trainer = Trainer(settings, corpus, Path(runtime.results) / "posbench-no-training", runtime)
    steps = itertools.count()
    return lambda: trainer.step(next(steps))


def attention(backward: bool, seconds: float) -> Ratio:
    """FlexAttention without a term, and the fastest backend, on the same tensors."""
    batch, heads, length, dims = ATTENDED
    q, k, v, slope = torch.randn(4, batch, heads, length, dims, device=DEVICE, dtype=torch.bfloat16).unbind()
    leaves = [x.detach().requires_grad_(backward) for x in (q, k, v)]
    scale = dims**-0.5
    pairs = Pairs(leaves[0], leaves[1], leaves[2], scale, Geometry.span(0, length, device=DEVICE))

    def whole(forward: Callable[[], torch.Tensor]) -> Work:
        def work() -> object:
            with torch.set_grad_enabled(backward):
                out = forward()
            return torch.autograd.grad(out, leaves, slope) if backward else out

        return waited(work)

    ours = whole(lambda: flex(pairs)[0])
    return compare(ours, whole(lambda: CHOICE(leaves[0], leaves[1], leaves[2], scale)), seconds)


def extended(name: str, seconds: float) -> Ratio:
    """One long text read under an extension, and under the model's own scheme."""
    text = ids(READ + 1)
    prompt = Prompt(text[:-64], text[None, -64:], 64)
    ours, theirs = subject_of(PART, name), subject_of(PART)
    return compare(
        waited(lambda: list(ours.score([prompt]))), waited(lambda: list(theirs.score([prompt]))), seconds
    )


def retrieval(seconds: float) -> Ratio:
    """As the CPU's line, over a context of another kind of length."""
    subject = subject_of(RETRIEVAL)
    prompt = Prompt(ids(CONTEXT), ids(QUESTIONS, QUESTION + VALUE), VALUE)
    alone = [Prompt(prompt.context, one[None, :QUESTION], 0, new=VALUE) for one in prompt.suffixes]

    def one_by_one() -> None:
        for question in alone:
            list(subject.generate([question]))

    return compare(waited(lambda: list(subject.score([prompt]))), waited(one_by_one), seconds, warm=1)


def subject_of(shape: Shape, extension: str = "") -> CheckpointSubject:
    """An untrained RoPE model in bfloat16, as evaluation runs it; extended for READ tokens."""
    model = with_scheme(hydra_app.contents("scheme")[CHOSEN["plain"]]["build"])(shape)[0].to(DEVICE)
    assert isinstance(model, GPT)
    scheme = model.scheme
    if extension:
        known = Size(shape.layers, shape.width, shape.heads).shape(shape.length)
        scheme = build(hydra_app.contents("extension")[extension]["build"], scheme, Context(known, READ))
    precision = torch.autocast(DEVICE, torch.bfloat16)
    return CheckpointSubject(model, scheme, shape.length, Recording("auto"), precision, 65536)


def waited(work: Work) -> Work:
    """The work, and the device's."""

    def both() -> None:
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return both
