"""Pretraining one model: a plain loop, exact to continue from its last checkpoint."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
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
from posbench.muon import Muon
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


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The share of the peak rate at `step`: linear up, flat, linear down to zero after the last step."""
    up = (step + 1) / max(1.0, settings.warmup * settings.steps)
    down = (settings.steps - step) / max(1.0, settings.decay * settings.steps)
    return min(1.0, up, down)


def optimizers(model: GPT, settings: TrainSettings) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each optimizer with its peak rate. Muon takes the blocks' matrices, never embeddings or a scheme's tables."""
    found: list[tuple[torch.optim.Optimizer, float]] = []
    others = list(model.parameters())
    if settings.optimizer == "muon":
        matrices = model.matrices()
        taken = {id(parameter) for parameter, _ in matrices}
        others = [parameter for parameter in others if id(parameter) not in taken]
        found.append((Muon(matrices, settings.matrix_lr), settings.matrix_lr))
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )
    return [*found, (adamw, settings.lr)]


class Stopped(Exception):  # noqa: N818 - it is no error
    """Asked to stop; what was done is in a checkpoint."""


class Trainer:
    """One training run and its folder: final/ when it is done, step-N/ on the way."""

    def __init__(
        self, settings: ModelSettings, corpus: Corpus, folder: Path, runtime: RuntimeSettings
    ) -> None:
        check(settings.train)
        self.settings, self.plan, self.folder, self.runtime = settings, settings.train, folder, runtime
        self.device = pick_device(runtime.device)
        self.kernel = Recording(runtime.kernel)
        self.model = build_model(settings, corpus.vocabulary.size).to(self.device)
        self.forward: Callable[..., Any] = torch.compile(self.model) if runtime.compile else self.model
        self.optimizers = optimizers(self.model, self.plan)
        for split in ("train", "validation"):
            if len(corpus.split(split).tokens) <= self.plan.length:
                raise LengthError(
                    f"train.length {self.plan.length} is longer than the {split} split of {corpus.name} "
                    f"({len(corpus.split(split).tokens)} tokens): choose a shorter one or other data"
                )
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
        # Whatever a scheme draws while training is a function of the step, so that continuing is exact.
        torch.manual_seed(self.plan.seed * 1_000_003 + step)
        batch = self.batches.at(step)
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
            hidden, _ = self.forward(ids[:, :-1], kernel=self.kernel)
            # Targets that do not count need no logits.
            logits = self.model.head(hidden[counted])
        return F.cross_entropy(logits.float(), ids[:, 1:][counted], reduction="sum")

    @torch.no_grad()
    def validate(self) -> float:
        """Nats per token on held-out text."""
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
            "train_tokens": step * self.plan.batch * self.plan.length,
            "n_params": self.model.parameter_count(),
            "kernel": self.kernel.ran,
            "settings": asdict(self.settings),
            "curve": self.curve,
        }
        checkpoints.write(self.folder / "final", {"model": self.model.state_dict()}, facts)
        for path in checkpoints.newest(self.folder, "step-*"):
            shutil.rmtree(path)
        return facts
