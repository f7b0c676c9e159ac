"""Savings in evaluation: questions that share a prefill, lengths that share a pass, extensions without training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from posbench.benchmark.line import Line
from posbench.benchmark.models import BenchmarkShape, as_lm, ours
from posbench.benchmark.paired import FEW_PAIRS, time_paired
from posbench.benchmark.steps import RecordingKernel
from posbench.config import hydra_app
from posbench.config.data import DataSettings
from posbench.config.schema import (
    EvaluationSettings,
    GridSettings,
    OverrideSettings,
    RuntimeSettings,
    SizeSettings,
    SweepScript,
    TrainSettings,
)
from posbench.data.corpus import open_corpus
from posbench.errors import PosbenchError, format_error
from posbench.evaluation.evaluator import EvaluatedModel
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.interface import Prompt
from posbench.model.gpt import GPT
from posbench.plan import grid
from posbench.plan.plan import plan_cells, plan_model
from posbench.position.call import Kernel
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme
from posbench.results.rows import RowStore
from posbench.training.trainer import Trainer

# Tokens of context and the goal: longer contexts save more.
CONTEXTS = ((1152, 1 / 15), (4608, 1 / 20))
QUESTIONS, QUESTION, VALUE = 64, 17, 8
# Questions that the peer answers in a pair: each costs it the same.
SAMPLED = 8
RETRIEVAL = BenchmarkShape(n_layers=1, d_model=128, n_heads=4, seq_len=256, batch_size=1)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
PREFIX = BenchmarkShape(n_layers=1, d_model=256, n_heads=4, seq_len=256, batch_size=1)
# Twice the depth would give the same ratios.
EXTENDED = BenchmarkShape(n_layers=2, d_model=256, n_heads=4, seq_len=256, batch_size=1)
EXTENDED_LENGTH, EXTENDED_PAIRS = 1024, 7
# Divisor of the demo's training steps, rounded down, and of its evaluation, rounded up.
SHARE = 8


def retrieval(seconds: float) -> Iterator[Line]:
    """Compares all questions of a context, scored over one prefill, with generation question by question."""
    lm = as_lm(ours(RETRIEVAL)[0], RETRIEVAL)
    for context, goal in CONTEXTS:
        prompt = Prompt(ids(context), ids(QUESTIONS, QUESTION + VALUE), VALUE)
        single = [
            Prompt(prompt.context, one[None, :QUESTION], 0, max_new_tokens=VALUE)
            for one in prompt.continuations[:SAMPLED]
        ]

        def together(prompt: Prompt = prompt) -> None:
            list(lm.loglikelihood([prompt]))

        def one_by_one(single: list[Prompt] = single) -> None:
            for question in single:
                list(lm.generate([question]))

        yield Line(
            f"retrieval: {QUESTIONS} questions of {QUESTION} + {VALUE} tokens over {context} ({RETRIEVAL})",
            f"per-question cached generation, same model: each question prefills its context ({SAMPLED} timed)",
            goal,
            time_paired(together, one_by_one, seconds, 1, FEW_PAIRS, -(-QUESTIONS // SAMPLED)),
        )


def prefix(seconds: float) -> Iterator[Line]:
    """Compares perplexity at six lengths from one pass at the longest with separate passes."""
    lm, longest = as_lm(ours(PREFIX)[0], PREFIX), max(LENGTHS)
    text = ids(longest + 1)

    def score(*windows: tuple[int, int]) -> Callable[[], object]:
        prompts = [Prompt(text[a : a + 1], text[None, a + 1 : b + 1], b - a) for a, b in windows]
        return lambda: list(lm.loglikelihood(prompts))

    once = score((0, longest))
    each = score(*[(0, length) for length in LENGTHS])
    equal = score(*[(a, a + length) for length in LENGTHS for a in range(0, longest, length)])
    what = f"prefix perplexity at {LENGTHS[0]} to {longest} tokens in one pass ({PREFIX})"
    yield Line(
        what, "a pass for each length", 1 / 1.4, time_paired(once, each, seconds, warm=1, least=FEW_PAIRS)
    )
    peer = f"as many tokens at each length: windows of it over all {longest}"
    yield Line(what, peer, 1 / 2.7, time_paired(once, equal, seconds, warm=1, least=FEW_PAIRS))


def extensions(seconds: float) -> Iterator[Line]:
    """Compares the evaluation of the demo's extensions with the training of the model that they extend."""
    script = demo()
    choices = {name: hydra_app.load_group(name) for name in ("scheme", "size", "task", "extension")}
    load_option = lambda group, name: choices[group][name]  # noqa: E731
    script.grid.scheme = script.grid.extended_schemes
    settings = next(grid.models(script, load_option))
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        runtime = RuntimeSettings(device="cpu", results_dir=directory, tracker="none")
        corpus = open_corpus(settings.data, Path(runtime.cache_dir))
        model = plan_model(replace(settings, train=replace(settings.train, steps=1)))
        Trainer(model.settings, corpus, folder / "model", runtime).run(lambda *_: None, lambda: False)
        trained = EvaluatedModel(model, folder / "model", corpus, runtime)
        found = grid.extensions(script, settings.scheme.name, load_option)
        cells = [
            cell
            for extension in found
            for name, entry in script.evaluate.items()
            for cell in plan_cells(model, extension, name, entry, load_option, corpus)
        ]
        trainer = Trainer(settings, corpus, folder / "other", runtime)
        steps, store = settings.train.steps // SHARE, RowStore(folder / "cells")

        def evaluate() -> None:
            for cell in cells:
                trained.evaluate(cell, store)

        def train() -> None:
            for step in range(steps):
                trainer.step(step)

        yield Line(
            f"evaluating {len(found)} extensions in the demo, {len(cells)} cells: 1/{SHARE} of their prompts",
            f"training their model: {steps} of its {settings.train.steps} steps",
            1.0,
            time_paired(evaluate, train, seconds, warm=1, least=FEW_PAIRS),
        )


def extended(seconds: float) -> Iterator[Line]:
    """Compares one text under each extension of configs/extension with the same under the model's own scheme."""
    settings = hydra_app.load_group("extension")
    model, text = ours(EXTENDED)[0], torch.zeros(1, EXTENDED_LENGTH, dtype=torch.long)
    assert isinstance(model, GPT)
    context = ExtensionContext(model.architecture.shape(EXTENDED.seq_len), EXTENDED_LENGTH)
    dispatcher = KernelDispatcher("auto")

    def read(scheme: PositionScheme, kernel: Kernel = dispatcher) -> Callable[[], object]:
        return torch.inference_mode()(lambda: model.with_scheme(scheme)(text, kernel=kernel))

    for name, entry in settings.items():
        if not entry["build"]:
            continue
        what, peer = (
            f"evaluation of {name} at {EXTENDED_LENGTH} tokens: {EXTENDED}",
            "the same with plain RoPE",
        )
        try:
            scheme = instantiate(entry["build"], Extension, model.scheme, context)
        except PosbenchError as error:
            yield Line(what, peer, 1.0, None, skipped=format_error(error))
            continue
        recorder = RecordingKernel()
        read(scheme, recorder)()
        # Regions are attended to one after the other; masks at such lengths are written out.
        calls = max(1, recorder.calls // EXTENDED.n_layers)
        goal = calls * (1.3 if "masks" in recorder.components else 1.05)
        yield Line(
            what, peer, goal, time_paired(read(scheme), read(model.scheme), seconds, least=EXTENDED_PAIRS)
        )


def demo() -> SweepScript:
    """The settings of the demo: the tasks for extended models, with 1/SHARE of their prompts."""
    content = hydra_app.load_group("experiment")["demo"]
    tasks = {name: EvaluationSettings(**entry) for name, entry in content["evaluate"].items()}
    found = hydra_app.load_group("task")
    for name, entry in tasks.items():
        settings = {**found[entry.task or name]["build"], **entry.settings}
        entry.settings |= {
            key: -(-settings[key] // SHARE) for key in ("num_examples", "num_contexts") if key in settings
        }
    return SweepScript(
        size=SizeSettings(**hydra_app.load_group("size")["tiny"]),
        data=hydra_app.to_dataclass(DataSettings, hydra_app.load_group("data")["sources"], ""),
        train=TrainSettings(**content["train"]),
        grid=GridSettings(**content["grid"]),
        overrides=OverrideSettings(**content["overrides"]),
        evaluate={name: entry for name, entry in tasks.items() if entry.include_extensions},
    )


def ids(*shape: int) -> np.ndarray:
    """Random ids of bytes."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).numpy()
