"""Whether a GPU computes what the specification says: every scheme and extension in FlexAttention against `dense`.

A model of two layers under each, float32 and bfloat16: final hidden states and the gradients of
all parameters, then a few steps of training. Both kernels get the same model in the same precision, so that a
difference is the kernel's. On the CPU the same program runs FlexAttention unfused, values alone.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from posbench.config import hydra_app
from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.errors import IncompatibleError, LengthError, UndefinedError, format_error, unknown
from posbench.instantiate import instantiate
from posbench.kernels.dense import dense
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.kernels.flex import flex, why_never_supported
from posbench.kernels.relative_values import with_relative_values
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.position.call import AttentionCall, Kernel
from posbench.position.extension import Extension, ExtensionContext
from posbench.runtime.device import autocast_context
from posbench.sweep.evaluator import device_name
from posbench.training.trainer import Trainer

SIZE, VOCABULARY = Size(n_layers=2, d_model=256, n_heads=4), 64
# No multiple of a block; what is extended was trained at a shorter one.
LENGTH, TRAIN_LEN, BATCH = 300, 128, 2
CHOSEN = hydra_app.load_group("gpu")["check"]
# Of final hidden states, which are of size 1, and of gradients over the largest of each parameter. float32 products
# may run in TF32; bfloat16 rounds what two layers feed each other.
TOLERANCE = {"float32": (5e-3, 2e-2), "bfloat16": (1e-1, 1e-1)}
STEPS = 40


@dataclass(frozen=True)
class CheckResult:
    """One line of the report; errors are None where nothing was measured."""

    variant: str
    dtype: str
    kernel: str
    values: float | None
    gradients: float | None
    status: str
    seconds: float


@dataclass(frozen=True)
class SchemeVariant:
    """A scheme, alone or extended."""

    scheme: str
    extension: str = ""

    def __str__(self) -> str:
        return f"{self.scheme} + {self.extension}" if self.extension else self.scheme

    def made(self, device: str) -> tuple[GPT, int]:
        """A model under the variant, and a length in tokens that this has a meaning for."""
        shape = SIZE.shape(TRAIN_LEN if self.extension else LENGTH)
        settings = hydra_app.load_group("scheme")[self.scheme]["build"]
        model = GPT(SIZE, VOCABULARY, build_scheme(settings, shape, seed=0), seed=0).to(device)
        if not self.extension:
            return model.train(), LENGTH
        around = hydra_app.load_group("extension")[self.extension]["build"]
        for length in (LENGTH, TRAIN_LEN):
            scheme = instantiate(around, Extension, model.scheme, ExtensionContext(shape, length))
            try:
                scheme.check(length)
            except (UndefinedError, LengthError):
                continue
            break
        return model.with_scheme(scheme).eval(), length


def variants(names: Sequence[str] = ()) -> list[SchemeVariant]:
    """Every scheme, then every extension around those of configs/gpu/check.yaml that can carry it; or those of some names."""
    schemes, extensions = hydra_app.load_group("scheme"), hydra_app.load_group("extension")
    for name in names:
        if name not in schemes and name not in extensions:
            raise unknown("scheme or extension", name, [*schemes, *extensions])
    found = [SchemeVariant(name) for name in schemes]
    for name, content in extensions.items():
        if content["build"] is None:
            continue
        for scheme in CHOSEN["around"]:
            try:
                SchemeVariant(scheme, name).made("cpu")
            except IncompatibleError:
                continue
            found.append(SchemeVariant(scheme, name))
    return [one for one in found if not names or {one.scheme, one.extension} & set(names)]


class Fused:
    """FlexAttention where it can run, else what a model takes by itself; notes what ran."""

    def __init__(self, compiled: bool) -> None:
        self.compiled, self.other = compiled, KernelDispatcher("auto")
        self.flex, self.unfit = with_relative_values(lambda call: flex(call, compiled), why_never_supported)

    def __call__(self, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        if self.unfit(call):
            return self.other(call)
        self.other.note("flex" if self.compiled else "flex unfused")
        return self.flex(call)


def compared(variant: SchemeVariant, dtype: str, device: str) -> CheckResult:
    """FlexAttention against `dense` in one precision."""
    began, fused, cuda = time.monotonic(), Fused(compiled=device != "cpu"), device != "cpu"
    values = gradients = None
    try:
        model, length = variant.made(device)
        wanted, slopes = computed(model, dense, length, dtype, cuda)
        found, others = computed(model, fused, length, dtype, cuda)
        values = float((found - wanted).abs().max())
        if cuda:
            gradients = max((off(one, other) for one, other in zip(others, slopes, strict=True)), default=0.0)
        status = verdict(dtype, values, gradients)
    except Exception as error:  # of a compiler, or a device: the others are still to be seen
        status = f"FAILED: {format_error(error)}"
    seconds = time.monotonic() - began
    return CheckResult(str(variant), dtype, fused.other.ran, values, gradients, status, round(seconds, 1))


def computed(
    model: GPT, kernel: Kernel, length: int, dtype: str, backward: bool
) -> tuple[Tensor, list[Tensor]]:
    """(B, T, W) final hidden states, and the gradient of a random sum of them by each parameter."""
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (BATCH, length), generator=draw).to(device)
    torch.manual_seed(0)  # what a scheme draws while training
    with torch.set_grad_enabled(backward), autocast_context(device, dtype):
        hidden = model(ids, kernel=kernel)[0].float()
    if not backward:
        return hidden, []
    weight = torch.randn(hidden.shape, generator=draw).to(device)
    parameters = list(model.parameters())
    found = torch.autograd.grad((hidden * weight).sum(), parameters, allow_unused=True)
    return hidden.detach(), [one.float() for one in found if one is not None]


def off(one: Tensor, other: Tensor) -> float:
    """The largest difference over the largest number of what it should be; one parameter."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))


def verdict(dtype: str, values: float, gradients: float | None) -> str:
    """Whether both are within the tolerance of the precision; not a number is not."""
    most, most_gradients = TOLERANCE[dtype]
    if not values <= most:
        return f"FAILED: values off by more than {most:g}"
    if gradients is not None and not gradients <= most_gradients:
        return f"FAILED: gradients off by more than {most_gradients:g}"
    return "ok"


def check(
    chosen: Sequence[SchemeVariant], device: str, minutes: float, say: Callable[[str], None], workers: int = 1
) -> tuple[list[CheckResult], list[SchemeVariant]]:
    """A line for each variant and precision, told as they come, and the variants that there was no time for.

    Compilation is what takes long, by one core each: several processes share the device.
    """
    until = time.time() + 60 * minutes
    work = [(variant, dtype) for variant in chosen for dtype in TOLERANCE]
    lines, left = list[CheckResult](), list[SchemeVariant]()
    with _pool(workers) as run:
        for (variant, _), line in zip(work, run(partial(_in_time, device, until), work), strict=True):
            if line is not None:
                lines.append(line)
                say(told(line))
            elif variant not in left:
                left.append(variant)
    return lines, left


@contextmanager
def _pool(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map`, in order, by so many processes."""
    if workers == 1:
        yield map
        return
    # Each compiles one thing at a time.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _in_time(device: str, until: float, work: tuple[SchemeVariant, str]) -> CheckResult | None:
    return compared(*work, device) if time.time() < until else None


def told(line: CheckResult) -> str:
    """A line as it comes."""
    errors = [f"{error:.2g}" for error in (line.values, line.gradients) if error is not None]
    return f"{line.variant} | {line.dtype} | {line.kernel} | {' '.join(errors)} | {line.status} | {line.seconds} s"


def trainings(device: str, cache: Path) -> Iterator[CheckResult]:
    """Whether a few steps of training lower the loss: plain and with a bias, and compiled on a GPU."""
    data = hydra_app.to_dataclass(DataSettings, hydra_app.load_group("data")["sources"], "")
    corpus = open_corpus(data, cache)
    for name in CHOSEN["trained"]:
        yield training(name, device, corpus, compiled=False)
    if device != "cpu":
        yield training(CHOSEN["trained"][0], device, corpus, compiled=True)


def training(name: str, device: str, corpus: Corpus, compiled: bool) -> CheckResult:
    """The last steps' loss under the first ones'."""
    began, ran = time.monotonic(), "none"
    data = DataSettings(num_keys=corpus.vocabulary.num_keys, num_values=corpus.vocabulary.num_values)
    train = TrainSettings(
        seq_len=TRAIN_LEN, steps=STEPS, batch_size=16, dtype="bfloat16", synthetic_fraction=0.0
    )
    size = SizeSettings("check", SIZE.n_layers, SIZE.d_model, SIZE.n_heads)
    scheme = SchemeSettings(name, hydra_app.load_group("scheme")[name]["build"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            runtime = RuntimeSettings(
                device=device, compile=compiled, wandb_mode="disabled", results_dir=folder
            )
            trainer = Trainer(ModelSettings(scheme, size, data, train), corpus, Path(folder), runtime)
            losses = torch.stack([trainer.step(step).detach() for step in range(STEPS)]).cpu()
        some = max(1, STEPS // 5)
        first, last, ran = float(losses[:some].mean()), float(losses[-some:].mean()), trainer.kernel.ran
        status = "ok" if last < first else f"FAILED: the loss went from {first:.3f} to {last:.3f}"
    except Exception as error:  # as above
        status = f"FAILED: {format_error(error)}"
    what = f"training {name}{', compiled' if compiled else ''}, {STEPS} steps"
    return CheckResult(what, "bfloat16", ran, None, None, status, round(time.monotonic() - began, 1))


def table(lines: Sequence[CheckResult]) -> pd.DataFrame:
    columns = {"values": "max error of values", "gradients": "max error of gradients"}
    return pd.DataFrame([asdict(line) for line in lines], columns=list(CheckResult.__annotations__)).rename(
        columns=columns
    )


def conditions(device: str) -> str:
    """The device, the model and the tolerances, in sentences for the report."""
    tolerances = "; ".join(
        f"{dtype} {values:g} of values, {gradients:g} of gradients"
        for dtype, (values, gradients) in TOLERANCE.items()
    )
    return (
        f"{device_name(torch.device(device))}, torch {torch.__version__}, Python {platform.python_version()}. "
        f"{SIZE.n_layers} layers, {SIZE.n_heads} heads of {SIZE.d_model // SIZE.n_heads}, {BATCH} x {LENGTH} tokens "
        f"(extensions of a model of {TRAIN_LEN}); against `dense` in the same precision. Tolerances: {tolerances} "
        "(gradients over the largest of their parameter)."
    )
