"""What evaluation saves: questions that share a prefill, lengths that share a pass, extensions without training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from posbench.benchmark.line import Line
from posbench.benchmark.models import Shape, ours
from posbench.benchmark.paired import FEW_PAIRS, compare
from posbench.config import hydra_app
from posbench.config.data import DataConfig
from posbench.config.schema import (
    AdjustSettings,
    EvaluationSettings,
    GridSettings,
    RuntimeSettings,
    SizeSettings,
    SweepScript,
    TrainSettings,
)
from posbench.data.corpus import open_corpus
from posbench.kernels.dispatcher import Recording
from posbench.lm.interface import Prompt
from posbench.lm.native import CheckpointSubject
from posbench.model.gpt import GPT
from posbench.results.rows import Store
from posbench.sweep import grid
from posbench.sweep.evaluator import Trained
from posbench.sweep.plan import plan_cells, plan_model
from posbench.training.trainer import Trainer

# Tokens of context, and the goal: what is saved grows with them.
CONTEXTS = ((1152, 1 / 15), (4608, 1 / 20))
QUESTIONS, QUESTION, VALUE = 64, 17, 8
RETRIEVAL = Shape(layers=1, width=128, heads=4, length=256, batch=1)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
PREFIX = Shape(layers=1, width=256, heads=4, length=256, batch=1)
# Of the demo's training, rounded down, and of its evaluation, rounded up.
SHARE = 4


def retrieval(seconds: float) -> Iterator[Line]:
    """All questions of a context: teacher-forced over one prefill, and generated one by one."""
    subject = subject_of(RETRIEVAL)
    for context, goal in CONTEXTS:
        prompt = Prompt(ids(context), ids(QUESTIONS, QUESTION + VALUE), VALUE)
        alone = [Prompt(prompt.context, one[None, :QUESTION], 0, new=VALUE) for one in prompt.suffixes]

        def together(prompt: Prompt = prompt) -> None:
            list(subject.score([prompt]))

        def one_by_one(alone: list[Prompt] = alone) -> None:
            for question in alone:
                list(subject.generate([question]))

        yield Line(
            f"retrieval: {QUESTIONS} questions of {QUESTION} + {VALUE} tokens over {context} ({RETRIEVAL})",
            "per-question cached generation, same model: each question prefills its context",
            goal,
            compare(together, one_by_one, seconds, warm=1, least=FEW_PAIRS),
        )


def prefix(seconds: float) -> Iterator[Line]:
    """Perplexity at six lengths from one pass at the longest."""
    subject, longest = subject_of(PREFIX), max(LENGTHS)
    text = ids(longest + 1)

    def score(*windows: tuple[int, int]) -> Callable[[], object]:
        prompts = [Prompt(text[a : a + 1], text[None, a + 1 : b + 1], b - a) for a, b in windows]
        return lambda: list(subject.score(prompts))

    once = score((0, longest))
    each = score(*[(0, length) for length in LENGTHS])
    equal = score(*[(a, a + length) for length in LENGTHS for a in range(0, longest, length)])
    what = f"prefix perplexity at {LENGTHS[0]} to {longest} tokens in one pass ({PREFIX})"
    yield Line(what, "a pass for each length", 1 / 1.4, compare(once, each, seconds, warm=1, least=FEW_PAIRS))
    peer = f"as many tokens at each length: windows of it over all {longest}"
    yield Line(what, peer, 1 / 2.7, compare(once, equal, seconds, warm=1, least=FEW_PAIRS))


def extensions(seconds: float) -> Iterator[Line]:
    """All cells of the demo's extended models against the demo's training of their one model."""
    script = demo()
    choices = {name: hydra_app.contents(name) for name in ("scheme", "size", "task", "extension")}
    choose = lambda group, name: choices[group][name]  # noqa: E731
    script.grid.scheme = script.grid.extend
    settings = next(grid.models(script, choose))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        runtime = RuntimeSettings(device="cpu", results=place, wandb="disabled")
        corpus = open_corpus(settings.data, Path(runtime.cache))
        model = plan_model(replace(settings, train=replace(settings.train, steps=1)))
        Trainer(model.settings, corpus, folder / "model", runtime).run(lambda *_: None, lambda: False)
        trained = Trained(model, folder / "model", corpus, runtime)
        tried = grid.extensions(script, settings.scheme.name, choose)
        cells = [
            cell
            for extension in tried
            for name, entry in script.evaluate.items()
            for cell in plan_cells(model, extension, name, entry, choose, corpus)
        ]
        trainer = Trainer(settings, corpus, folder / "other", runtime)
        steps, store = settings.train.steps // SHARE, Store(folder / "cells")

        def evaluate() -> None:
            for cell in cells:
                trained.evaluate(cell, store)

        def train() -> None:
            for step in range(steps):
                trainer.step(step)

        yield Line(
            f"evaluating {len(tried)} extensions in the demo, {len(cells)} cells: 1/{SHARE} of their prompts",
            f"training their model: {steps} of its {settings.train.steps} steps",
            1.0,
            compare(evaluate, train, seconds, warm=1, least=FEW_PAIRS),
        )


def demo() -> SweepScript:
    """The demo's settings, with a share of the prompts of those tasks that extended models get."""
    content = hydra_app.contents("experiment")["demo"]
    tasks = {name: EvaluationSettings(**entry) for name, entry in content["evaluate"].items()}
    found = hydra_app.contents("task")
    for name, entry in tasks.items():
        asked = {**found[entry.task or name]["build"], **entry.settings}
        entry.settings |= {key: -(-asked[key] // SHARE) for key in ("examples", "contexts") if key in asked}
    return SweepScript(
        size=SizeSettings(**hydra_app.contents("size")["tiny"]),
        data=hydra_app.typed(DataConfig, hydra_app.contents("data")["sources"], ""),
        train=TrainSettings(**content["train"]),
        grid=GridSettings(**content["grid"]),
        adjust=AdjustSettings(**content["adjust"]),
        evaluate={name: entry for name, entry in tasks.items() if entry.extensions},
    )


def subject_of(shape: Shape) -> CheckpointSubject:
    """Our plain RoPE model, untrained, as evaluation runs it."""
    model = ours(shape)[0]
    assert isinstance(model, GPT)
    own = RuntimeSettings()
    return CheckpointSubject(
        model, model.scheme, shape.length, Recording("auto"), nullcontext(), own.tokens_per_pass
    )


def ids(*shape: int) -> np.ndarray:
    """Random ids of text."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).numpy()
