"""Pretraining one model: a plain loop, exact to continue from its last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posbench.config.checks import check
from posbench.config.schema import ModelSettings, RuntimeSettings, TrainSettings
from posbench.data.batches import Batch, Batches
from posbench.data.corpus import Corpus, check_corpus
from posbench.kernels.dispatcher import Recording
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.position.scheme import PositionScheme
from posbench.runtime import distributed
from posbench.runtime.device import pick_device, precision
from posbench.runtime.distributed import world
from posbench.training import checkpoints, resume
from posbench.training.compile import LAUNCH_BOUND, Compiled, compiled, forget, wanted
from posbench.training.loss_module import Learner, laid, over, sent
from posbench.training.optimizers import learning_rate, optimizers
from posbench.training.prefetch import Ahead
from posbench.training.throughput import Meter

# Called with (step, metrics) about every REPORT steps and at each validation.
Report = Callable[[int, dict[str, float]], None]
REPORT = 25
# Batches made ahead for a GPU; a CPU that trains has no time to spare beside it.
AHEAD = 2


def build_model(settings: ModelSettings, vocabulary: int) -> GPT:
    """The untrained model of these settings, on the CPU."""
    one = settings.size
    size = Size(one.layers, one.width, one.heads, one.mlp, one.head_dim)
    shape = size.shape(settings.train.length)
    scheme = build_scheme(settings.scheme.build, shape, settings.train.seed)
    return GPT(size, vocabulary, scheme, settings.train.seed)


@dataclass(frozen=True, eq=False)
class Start:
    """Where fine-tuning starts.

    Attributes:
        model: a trained model, which becomes the fine-tuned one.
        scheme: the model's scheme with an extension around it, in its place.
        train: how training goes on, by fresh optimizers.
        steps, tokens: what was trained and read before; the data's order goes on from there.
    """

    model: GPT
    scheme: PositionScheme
    train: TrainSettings
    steps: int
    tokens: int


class Stopped(Exception):  # noqa: N818 - it is no error
    """Asked to stop; what was done is in a checkpoint."""


class Trainer:
    """One training run and its folder: final/ when it is done, step-N/ on the way."""

    def __init__(
        self,
        settings: ModelSettings,
        corpus: Corpus,
        folder: Path,
        runtime: RuntimeSettings,
        start: Start | None = None,
    ) -> None:
        self.settings, self.folder, self.runtime, self.start = settings, folder, runtime, start
        self.plan, self.world = start.train if start else settings.train, world()
        check(self.plan)
        check_corpus(corpus, self.plan.length)
        distributed.check(runtime.parallel, self.plan.batch, self.plan.accumulate, self.world.size)
        self.device = pick_device(runtime.device)
        self.kernel = Recording(runtime.kernel)
        model = start.model if start else build_model(settings, corpus.vocabulary.size)
        self.model = model.to(self.device)
        self.curve: list[dict[str, float]] = []
        saved = resume.newest(folder, self.device, self.world)
        if saved:
            self.model.load_state_dict(saved.model)
        learner = Learner(self.model, start.scheme if start else None, self.kernel)
        divided = distributed.divided(learner, list(self.model.blocks), runtime.parallel, self.world)
        gpu, alone = self.device.type == "cuda", self.world.size == 1
        self.compiles = wanted(runtime.compile, self.device)
        self.fixed = self.compiles or gpu
        # Gradients in the memory of a CUDA graph last until its next replay: no step of several parts.
        small = self.model.parameter_count() <= LAUNCH_BOUND and self.plan.accumulate == 1
        if self.compiles and alone:
            self.learner: Any = Compiled(learner, self.kernel, gpu and small, runtime.compile is True)
        else:  # what divides a module stands between its graphs
            self.learner = compiled(divided, whole=False) if self.compiles else divided
        self.optimizers = optimizers(self.model, self.plan, self.compiles and alone)
        self.ahead = Ahead(self.parts, self.plan.steps, AHEAD if gpu else 0)
        self.done = 0
        self.losses: list[Tensor] = []
        if saved:
            saved.into(self.optimizers)
            self.done, self.curve = int(saved.facts["step"]), saved.facts["curve"]
            # Sums over the ranks, which are summed again when they are reported.
            said = saved.facts["losses"] if self.world.leads else [0.0] * len(saved.facts["losses"])
            self.losses = [torch.tensor(loss, device=self.device) for loss in said]
        plan = self.plan
        self.batches = Batches(
            corpus.split("train"),
            corpus.vocabulary,
            plan.length,
            plan.batch,
            plan.records,
            plan.asked,
            plan.seed,
            plan.synthetic,
        )
        # Held-out text alone, the same for every seed.
        self.held_out = Batches(
            corpus.split("validation"), corpus.vocabulary, plan.length, plan.batch, 0.0, 0.0, 0
        )

    def run(
        self, report: Report = lambda step, metrics: None, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; the facts of the final model.

        Raises:
            Stopped: after a checkpoint, once `stop` says so.
        """
        done = checkpoints.facts(self.folder / "final")
        if done is not None:
            return done
        try:
            step, status = self.steps(report, stop)
        finally:
            self.ahead.close()
            if self.compiles:
                forget(self.device)
        return self.finish(step, status)

    def steps(self, report: Report, stop: Callable[[], bool]) -> tuple[int, str]:
        """All that are left; how many were taken altogether, and how it ended."""
        step, losses, status = self.done, self.losses, "ok"
        plan, tokens = self.plan, self.plan.batch * self.plan.length
        meter = Meter(self.model, tokens, plan.length, self.device, plan.dtype, self.world.size)
        meter.start(step)
        while step < self.plan.steps:
            if self.world.any(stop()):
                self.save(step, losses)
                raise Stopped
            losses.append(self.step(step))
            step += 1
            if step % self.runtime.checkpoint_every == 0 and step < self.plan.steps:
                self.save(step, losses)
            validating = step % self.plan.validate_every == 0 or step == self.plan.steps
            if step % REPORT and not validating:
                continue
            loss = self.world.total(torch.stack(losses).mean().item())
            losses.clear()
            speed = meter.read(step)
            metrics = {"step": step, "loss": loss, "lr": self.plan.lr * learning_rate(self.plan, step - 1)}
            if not math.isfinite(loss):
                status = "diverged"
                break
            if validating:
                metrics["validation_loss"] = self.validate()
            self.curve.append(metrics)
            report(step, {**metrics, **speed})
            meter.start(step)
        return step, status

    def step(self, step: int) -> Tensor:
        """One update; the loss in nats per counted target, still on the device."""
        self.model.train()
        # Whatever a scheme draws while training is a function of the step, so that continuing is exact.
        torch.manual_seed(self.plan.seed * 1_000_003 + step)
        total, parts = self.ahead.at(step)
        losses = []
        if isinstance(self.learner, Compiled) and self.learner.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        for index, part in enumerate(parts):
            with self.alone(index + 1 < len(parts)):
                # A quotient of its own: a CUDA graph writes its loss to the same place every time.
                loss = self.nats(over(part, self.device)) / total
                # Gradients are averaged over the ranks.
                (loss * self.world.size).backward()
            losses.append(loss.detach())
        if self.plan.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate(self.plan, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    def parts(self, step: int) -> tuple[int, list[tuple[Tensor, ...]]]:
        """How many targets of a step count, and this rank's parts of its batch, on the CPU."""
        batch = self.batches.at(step + (self.start.steps if self.start else 0))
        mine = self.world.share(self.plan.batch)
        ids, which = batch.ids[mine], batch.counted[mine]
        size, pinned = len(ids) // self.plan.accumulate, self.device.type == "cuda"
        cuts = [slice(start, start + size) for start in range(0, len(ids), size)]
        parts = [laid(Batch(ids[cut], which[cut]), self.fixed, pinned) for cut in cuts]
        return int(batch.counted.sum()), parts

    def alone(self, more: bool) -> AbstractContextManager[Any]:
        """Gradients of all parts of a batch but the last stay on their rank."""
        return self.learner.no_sync() if more and hasattr(self.learner, "no_sync") else nullcontext()

    def loss(self, batch: Batch) -> Tensor:
        """The sum of nats over the counted targets."""
        return self.nats(sent(batch, self.device, self.fixed))

    def nats(self, sent: tuple[Tensor, ...]) -> Tensor:
        """The same of what is on the device."""
        with precision(self.device, self.plan.dtype):
            return self.learner(*sent)

    @torch.no_grad()
    def validate(self) -> float:
        """Nats per token on held-out text."""
        self.model.eval()
        nats, count = 0.0, self.plan.validate_batches
        # As many passes on each rank, where one holds parts of the weights alone.
        for first in range(0, count, self.world.size):
            index = first + self.world.rank
            batch = self.held_out.at(min(index, count - 1))
            loss = self.loss(batch).item() / int(batch.counted.sum())
            nats += loss if index < count else 0.0
        return self.world.total(nats) / count

    def save(self, step: int, losses: list[Tensor]) -> None:
        """A checkpoint to continue from, with the losses not reported yet."""
        facts = {"curve": self.curve, "losses": [self.world.total(loss.item()) for loss in losses]}
        resume.save(self.folder, step, self.model, self.optimizers, facts, self.world)

    def finish(self, step: int, status: str) -> dict[str, Any]:
        """Write the final model and drop what was only there to continue."""
        facts = {
            "status": status,
            "step": step,
            # Of the pretraining: all extensions of a model share it, and a figure has one.
            "train_tokens": self.start.tokens if self.start else step * self.plan.batch * self.plan.length,
            "n_params": self.model.parameter_count(),
            "kernel": self.kernel.ran,
            "compiled": self.learner.how
            if isinstance(self.learner, Compiled)
            else str(self.compiles).lower(),
            "settings": asdict(self.settings) | ({"finetune": asdict(self.plan)} if self.start else {}),
            "curve": self.curve,
        }
        resume.finish(self.folder, self.model, facts, self.world)
        return facts
