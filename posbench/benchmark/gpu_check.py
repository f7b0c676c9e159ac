"""Comparison of FlexAttention on a GPU with the reference kernel `dense`, for every scheme and extension.

A model of two layers in float32 and bfloat16: final hidden states and the gradients of all parameters, then a few
steps of training. Both kernels run the same model in the same precision, so that every difference comes from the
kernel. On the CPU the same program runs FlexAttention unfused, without gradients.
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

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from posbench.config import hydra_app
from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.errors import IncompatibleError, LengthError, UndefinedError, format_error, unknown
from posbench.evaluation.evaluator import device_name
from posbench.instantiate import instantiate
from posbench.kernels.dense import dense
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.kernels.flex import flex, why_never_supported
from posbench.kernels.relative_values import with_relative_values
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.position.call import AttentionCall, Kernel
from posbench.position.extension import Extension, ExtensionContext
from posbench.runtime.device import autocast_context
from posbench.training.trainer import Trainer

SIZE, VOCABULARY = Size(n_layers=2, d_model=256, n_heads=4), 64
# LENGTH is no multiple of a block; extended models have the shorter training length.
LENGTH, TRAIN_LEN, BATCH = 300, 128, 2
SETTINGS = hydra_app.load_group("gpu")["check"]
# Largest errors of the final hidden states, whose scale is 1, and of gradients relative to the largest of their
# parameter. The largest on an H200 were 6e-6 and 2e-5 in float32, and 0.04 and 0.1 in bfloat16, which rounds the
# activations between layers.
TOLERANCE = {"float32": (1e-4, 1e-3), "bfloat16": (0.1, 0.25)}
STEPS = 40


@dataclass(frozen=True)
class CheckResult:
    """One line of the report; `values` and `gradients` are the largest errors, None where nothing was measured."""

    variant: str
    dtype: str
    kernel: str
    values: float | None
    gradients: float | None
    status: str
    seconds: float


@dataclass(frozen=True)
class SchemeVariant:
    """A scheme, alone or with an extension."""

    scheme: str
    extension: str = ""

    def __str__(self) -> str:
        return f"{self.scheme} + {self.extension}" if self.extension else self.scheme

    def made(self, device: str) -> tuple[GPT, int]:
        """Returns a model under the variant, and a length in tokens at which the variant is defined."""
        shape = SIZE.shape(TRAIN_LEN if self.extension else LENGTH)
        settings = hydra_app.load_group("scheme")[self.scheme]["build"]
        model = GPT(SIZE, VOCABULARY, build_scheme(settings, shape, seed=0), seed=0).to(device)
        perturb(model)
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


@torch.no_grad()
def perturb(model: GPT) -> None:
    """Moves every parameter from its first value, at which a gradient may be zero but for rounding, as bam's are."""
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        size = parameter.square().mean().sqrt()
        noise = torch.randn(parameter.shape, generator=draw).to(parameter.device)
        parameter.add_(0.1 * torch.where(size > 0, size, 1.0) * noise)


def variants(names: Sequence[str] = ()) -> list[SchemeVariant]:
    """Lists every scheme, then every extension around the schemes of configs/gpu/check.yaml that support it.

    Args:
        names: schemes and extensions to keep, by default all.
    """
    schemes, extensions = hydra_app.load_group("scheme"), hydra_app.load_group("extension")
    for name in names:
        if name not in schemes and name not in extensions:
            raise unknown("scheme or extension", name, [*schemes, *extensions])
    found = [SchemeVariant(name) for name in schemes]
    for name, content in extensions.items():
        if content["build"] is None:
            continue
        for scheme in SETTINGS["around"]:
            try:
                SchemeVariant(scheme, name).made("cpu")
            except IncompatibleError:
                continue
            found.append(SchemeVariant(scheme, name))
    return [one for one in found if not names or {one.scheme, one.extension} & set(names)]


class FlexOrDispatcher:
    """FlexAttention where it supports a call, else the kernel of the dispatcher's choice; records which ran."""

    def __init__(self, compiled: bool) -> None:
        self.compiled, self.other = compiled, KernelDispatcher("auto")
        self.flex, self.why_unsupported = with_relative_values(
            lambda call: flex(call, compiled), why_never_supported
        )

    def __call__(self, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        if self.why_unsupported(call):
            return self.other(call)
        self.other.note("flex" if self.compiled else "flex unfused")
        return self.flex(call)


def compared(variant: SchemeVariant, dtype: str, device: str) -> CheckResult:
    """Compares FlexAttention with `dense` in one precision."""
    started, fused, cuda = time.monotonic(), FlexOrDispatcher(compiled=device != "cpu"), device != "cpu"
    values = gradients = None
    try:
        model, length = variant.made(device)
        wanted, slopes = computed(model, dense, length, dtype, cuda)
        found, others = computed(model, fused, length, dtype, cuda)
        values = float((found - wanted).abs().max())
        if cuda:
            gradients = largest_error(others, slopes)
        status = verdict(dtype, values, gradients)
    except Exception as error:  # of a compiler or a device; the other variants go on
        status = f"FAILED: {format_error(error)}"
    seconds = time.monotonic() - started
    return CheckResult(str(variant), dtype, fused.other.ran, values, gradients, status, round(seconds, 1))


def computed(
    model: GPT, kernel: Kernel, length: int, dtype: str, backward: bool
) -> tuple[Tensor, list[Tensor]]:
    """Returns the final hidden states (B, T, W), and the gradients of a random sum of them by the parameters."""
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (BATCH, length), generator=draw).to(device)
    torch.manual_seed(0)  # for schemes that draw positions in training
    with torch.set_grad_enabled(backward), autocast_context(device, dtype):
        hidden = model(ids, kernel=kernel)[0].float()
    if not backward:
        return hidden, []
    weight = torch.randn(hidden.shape, generator=draw).to(device)
    parameters = list(model.parameters())
    found = torch.autograd.grad((hidden * weight).sum(), parameters, allow_unused=True)
    return hidden.detach(), [one.float() for one in found if one is not None]


def largest_error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Returns the largest relative error of the gradients, 0 without any; NaN if one is, which Python's max drops."""
    errors = [relative_error(one, other) for one, other in zip(found, wanted, strict=True)]
    return float(np.max(errors, initial=0.0))


def relative_error(one: Tensor, other: Tensor) -> float:
    """Largest difference of two gradients of a parameter, relative to the largest number of the expected one."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))


def verdict(dtype: str, values: float, gradients: float | None) -> str:
    """Returns "ok" if both errors are within the tolerance of the precision, else the failure; NaN fails."""
    most, most_gradients = TOLERANCE[dtype]
    if not values <= most:
        return f"FAILED: values off by more than {most:g}"
    if gradients is not None and not gradients <= most_gradients:
        return f"FAILED: gradients off by more than {most_gradients:g}"
    return "ok"


def check(
    chosen: Sequence[SchemeVariant], device: str, minutes: float, say: Callable[[str], None], workers: int = 1
) -> tuple[list[CheckResult], list[SchemeVariant]]:
    """Checks variants in every precision; returns a line for each, and the variants for which there was no time.

    Args:
        say: called with each line as it comes.
        workers: processes that share the device; each compiles on one core, which takes most of the time.
    """
    deadline = time.time() + 60 * minutes
    work = [(variant, dtype) for variant in chosen for dtype in TOLERANCE]
    lines, left = list[CheckResult](), list[SchemeVariant]()
    with _pool(workers) as run:
        for (variant, _), line in zip(work, run(partial(_in_time, device, deadline), work), strict=True):
            if line is not None:
                lines.append(line)
                say(format_line(line))
            elif variant not in left:
                left.append(variant)
    return lines, left


@contextmanager
def _pool(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yields a function like `map` that runs in several processes."""
    if workers == 1:
        yield map
        return
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _in_time(device: str, deadline: float, work: tuple[SchemeVariant, str]) -> CheckResult | None:
    return compared(*work, device) if time.time() < deadline else None


def format_line(line: CheckResult) -> str:
    """Formats a line for the terminal."""
    errors = [f"{error:.2g}" for error in (line.values, line.gradients) if error is not None]
    return f"{line.variant} | {line.dtype} | {line.kernel} | {' '.join(errors)} | {line.status} | {line.seconds} s"


def trainings(device: str, cache: Path) -> Iterator[CheckResult]:
    """Checks that training lowers the loss: of a plain scheme and one with a bias, and compiled on a GPU."""
    data = hydra_app.to_dataclass(DataSettings, hydra_app.load_group("data")["sources"], "")
    corpus = open_corpus(data, cache)
    for name in SETTINGS["trained"]:
        yield training(name, device, corpus, compiled=False)
    if device != "cpu":
        yield training(SETTINGS["trained"][0], device, corpus, compiled=True)


def training(name: str, device: str, corpus: Corpus, compiled: bool) -> CheckResult:
    """Checks that the loss of the last steps is below that of the first."""
    started, ran = time.monotonic(), "none"
    data = DataSettings(num_keys=corpus.vocabulary.num_keys, num_values=corpus.vocabulary.num_values)
    train = TrainSettings(
        seq_len=TRAIN_LEN, steps=STEPS, batch_size=16, dtype="bfloat16", synthetic_fraction=0.0
    )
    size = SizeSettings("check", SIZE.n_layers, SIZE.d_model, SIZE.n_heads)
    scheme = SchemeSettings(name, hydra_app.load_group("scheme")[name]["build"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            runtime = RuntimeSettings(device=device, compile=compiled, tracker="none", results_dir=folder)
            trainer = Trainer(ModelSettings(scheme, size, data, train), corpus, Path(folder), runtime)
            losses = torch.stack([trainer.step(step).detach() for step in range(STEPS)]).cpu()
        some = max(1, STEPS // 5)
        first, last, ran = float(losses[:some].mean()), float(losses[-some:].mean()), trainer.kernel.ran
        status = "ok" if last < first else f"FAILED: the loss went from {first:.3f} to {last:.3f}"
    except Exception as error:  # of a compiler or a device
        status = f"FAILED: {format_error(error)}"
    what = f"training {name}{', compiled' if compiled else ''}, {STEPS} steps"
    return CheckResult(what, "bfloat16", ran, None, None, status, round(time.monotonic() - started, 1))


def table(lines: Sequence[CheckResult]) -> pd.DataFrame:
    """The lines as a table."""
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
