"""Pretraining one model: a plain loop, exact to continue from its last checkpoint."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench import checkpoints
from posbench.data.batches import Batch, Batches
from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, LengthError
from posbench.kernels import Recording
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.optimizers import learning_rate, optimizers
from posbench.scheme import PositionScheme
from posbench.settings import ModelSettings, RuntimeSettings, TrainSettings

# Called with (step, metrics) about every REPORT steps and at each validation.
Report = Callable[[int, dict[str, float]], None]
REPORT = 25


def build_model(settings: ModelSettings, vocabulary: int) -> GPT:
    """The untrained model of these settings, on the CPU."""
    size = Size(settings.size.layers, settings.size.width, settings.size.heads, settings.size.mlp)
    shape = size.shape(settings.train.length)
    scheme = build_scheme(settings.scheme.build, shape, settings.train.seed)
    return GPT(size, vocabulary, scheme, settings.train.seed)


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r}: give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: this machine has no CUDA device; give device=cpu or auto")
    return device


def precision(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Autocast to bfloat16, or nothing for float32."""
    if dtype == "float32":
        return nullcontext()
    if dtype == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    raise ConfigError(f"dtype {dtype!r}: give float32 or bfloat16")


def check(settings: TrainSettings) -> None:
    """Raise ConfigError for settings that no training can have."""
    for name in ("length", "steps", "batch", "accumulate", "validate_every"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"train.{name} {getattr(settings, name)}: give at least 1")
    for name in ("records", "asked", "warmup", "decay"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ConfigError(f"train.{name} {getattr(settings, name)}: give a share from 0 to 1")
    if settings.batch % settings.accumulate:
        raise ConfigError(
            f"train.accumulate {settings.accumulate} does not divide train.batch {settings.batch}: choose a divisor"
        )
    if settings.optimizer not in ("muon", "adamw"):
        raise ConfigError(f"train.optimizer {settings.optimizer!r}: give muon or adamw")


def check_corpus(corpus: Corpus, length: int) -> None:
    """Raise LengthError if a split of the corpus is too short to train on sequences of `length` tokens."""
    for split in ("train", "validation"):
        if len(corpus.split(split).tokens) <= length:
            raise LengthError(
                f"train.length {length} is longer than the {split} split of {corpus.name} "
                f"({len(corpus.split(split).tokens)} tokens): choose a shorter one or other data"
            )


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
        self.plan = start.train if start else settings.train
        check(self.plan)
        check_corpus(corpus, self.plan.length)
        self.device = pick_device(runtime.device)
        self.kernel = Recording(runtime.kernel)
        model = start.model if start else build_model(settings, corpus.vocabulary.size)
        self.model = model.to(self.device)
        self.forward: Callable[..., Any] = torch.compile(self.model) if runtime.compile else self.model
        self.optimizers = optimizers(self.model, self.plan)
        plan = self.plan
        self.batches = Batches(
            corpus.split("train"),
            corpus.vocabulary,
            plan.length,
            plan.batch,
            plan.records,
            plan.asked,
            plan.seed,
        )
        # Held-out text alone, the same for every seed.
        self.held_out = Batches(
            corpus.split("validation"), corpus.vocabulary, plan.length, plan.batch, 0.0, 0.0, 0
        )
        self.curve: list[dict[str, float]] = []

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
        step, losses = self.restore()
        started, since = time.monotonic(), step
        status = "ok"
        while step < self.plan.steps:
            if stop():
                self.save(step, losses)
                raise Stopped
            losses.append(self.step(step))
            step += 1
            if step % self.runtime.checkpoint_every == 0 and step < self.plan.steps:
                self.save(step, losses)
            validating = step % self.plan.validate_every == 0 or step == self.plan.steps
            if step % REPORT and not validating:
                continue
            loss = torch.stack(losses).mean().item()
            losses.clear()
            metrics = {"step": step, "loss": loss, "lr": self.plan.lr * learning_rate(self.plan, step - 1)}
            if not math.isfinite(loss):
                status = "diverged"
                break
            if validating:
                metrics["validation_loss"] = self.validate()
            self.curve.append(metrics)
            speed = (step - since) * self.plan.batch * self.plan.length / (time.monotonic() - started)
            report(step, {**metrics, "tokens_per_second": speed})
        return self.finish(step, status)

    def step(self, step: int) -> Tensor:
        """One update; the loss in nats per counted target, still on the device."""
        self.model.train()
        # Whatever a scheme draws while training is a function of the step, so that continuing is exact.
        torch.manual_seed(self.plan.seed * 1_000_003 + step)
        batch = self.batches.at(step + (self.start.steps if self.start else 0))
        total = int(batch.counted.sum())
        losses = []
        size = self.plan.batch // self.plan.accumulate
        for start in range(0, self.plan.batch, size):
            part = slice(start, start + size)
            loss = self.loss(Batch(batch.ids[part], batch.counted[part])) / total
            loss.backward()
            losses.append(loss.detach())
        if self.plan.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate(self.plan, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    def loss(self, batch: Batch) -> Tensor:
        """The sum of nats over the counted targets."""
        ids = torch.from_numpy(batch.ids).to(self.device, non_blocking=True)
        counted = torch.from_numpy(batch.counted).to(self.device, non_blocking=True)
        with precision(self.device, self.plan.dtype):
            scheme = self.start.scheme if self.start else None
            hidden, _ = self.forward(ids[:, :-1], scheme=scheme, kernel=self.kernel)
            # Targets that do not count need no logits.
            logits = self.model.head(hidden[counted])
        return F.cross_entropy(logits.float(), ids[:, 1:][counted], reduction="sum")

    @torch.no_grad()
    def validate(self) -> float:
        """Nats per token on held-out text."""
        self.model.eval()
        batches = [self.held_out.at(index) for index in range(self.plan.validate_batches)]
        return sum(self.loss(batch).item() / batch.counted.sum() for batch in batches) / len(batches)

    def save(self, step: int, losses: list[Tensor]) -> None:
        """A checkpoint to continue from, with the losses not reported yet; older ones go once it stands."""
        state = {
            f"{which}/{index}/{name}": tensor
            for which, (optimizer, _) in enumerate(self.optimizers)
            for index, entry in optimizer.state_dict()["state"].items()
            for name, tensor in entry.items()
        }
        facts = {"step": step, "curve": self.curve, "losses": [loss.item() for loss in losses]}
        older = [
            path for path in checkpoints.newest(self.folder, "step-*") if path.name != f"step-{step:08d}"
        ]
        groups = {"model": self.model.state_dict(), "optimizer": state}
        checkpoints.write(self.folder / f"step-{step:08d}", groups, facts)
        for path in older:
            shutil.rmtree(path)

    def restore(self) -> tuple[int, list[Tensor]]:
        """Load the newest whole checkpoint; the number of steps that are done, and their losses not reported yet."""
        for path in checkpoints.newest(self.folder, "step-*"):
            facts = checkpoints.facts(path)
            model = facts and checkpoints.tensors(path, "model", self.device)
            state = model and checkpoints.tensors(path, "optimizer", self.device)
            if not (facts and model and state):
                continue
            self.model.load_state_dict(model)
            for which, (optimizer, _) in enumerate(self.optimizers):
                entries: dict[int, dict[str, Tensor]] = {}
                for key, tensor in state.items():
                    owner, index, name = key.split("/")
                    if int(owner) == which:
                        entries.setdefault(int(index), {})[name] = tensor
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": entries, "param_groups": groups})
            self.curve = facts["curve"]
            return int(facts["step"]), [torch.tensor(loss, device=self.device) for loss in facts["losses"]]
        return 0, []

    def finish(self, step: int, status: str) -> dict[str, Any]:
        """Write the final model and drop what was only there to continue."""
        facts = {
            "status": status,
            "step": step,
            # Of the pretraining: all extensions of a model share it, and a figure has one.
            "train_tokens": self.start.tokens if self.start else step * self.plan.batch * self.plan.length,
            "n_params": self.model.parameter_count(),
            "kernel": self.kernel.ran,
            "settings": asdict(self.settings) | ({"finetune": asdict(self.plan)} if self.start else {}),
            "curve": self.curve,
        }
        checkpoints.write(self.folder / "final", {"model": self.model.state_dict()}, facts)
        for path in checkpoints.newest(self.folder, "step-*"):
            shutil.rmtree(path)
        return facts
