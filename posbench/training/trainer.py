"""The training loop of one model; an interrupted run continues to the same bits from its last checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posbench.config.checks import check
from posbench.config.schema import ExtensionSettings, ModelSettings, RuntimeSettings, TrainSettings
from posbench.data.batches import Batches, held_out_batches
from posbench.data.corpus import Corpus, check_corpus
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.runtime import distributed
from posbench.runtime.device import autocast_context, pick_device
from posbench.runtime.distributed import world
from posbench.training import checkpoints, resume
from posbench.training.compile import (
    CUDA_GRAPH_MAX_PARAMETERS,
    CompiledLoss,
    compile_module,
    free_compiled_code,
    should_compile,
)
from posbench.training.loss_module import LossModule, collate
from posbench.training.optimizers import build_optimizers, lr_multiplier
from posbench.training.prefetch import Prefetcher
from posbench.training.throughput import ThroughputMeter

# Called with (step, metrics) every LOG_INTERVAL steps and at each validation.
Report = Callable[[int, dict[str, float]], None]
LOG_INTERVAL = 25
# Batches made ahead for a GPU. On a CPU a second thread would compete with training.
PREFETCH_DEPTH = 2
# What all ranks do before a step; of several, the largest.
SAVE, STOP = 1, 2


def build_model(settings: ModelSettings, vocab_size: int) -> GPT:
    """Builds the untrained model on the CPU."""
    sizes = settings.size
    size = Size(sizes.n_layers, sizes.d_model, sizes.n_heads, sizes.mlp_ratio, sizes.head_dim)
    shape = size.shape(settings.train.seq_len)
    scheme = build_scheme(settings.scheme.build, shape, settings.train.seed)
    return GPT(size, vocab_size, scheme, settings.train.seed)


@dataclass(frozen=True, eq=False)
class FinetuneStart:
    """The start of a fine-tuning.

    Attributes:
        model: the pretrained model, whose weights are trained further and saved.
        extended: a view of the model under an extension, which computes the loss.
        extension: its settings, which the fine-tuned model keeps.
        train: settings of the fine-tuning; its optimizers start afresh.
        steps: steps of the pretraining, after which the order of the data continues.
        tokens: tokens of the pretraining.
    """

    model: GPT
    extended: GPT
    extension: ExtensionSettings
    train: TrainSettings
    steps: int
    tokens: int


class TrainingInterrupted(Exception):  # noqa: N818 - not an error
    """Training stopped on request, after writing a checkpoint."""


class Trainer:
    """One training run and its folder: step-N/ holds a checkpoint, final/ the trained model.

    Args:
        settings: of the model, or of the pretrained model under `start`.
        folder: None neither continues nor saves: single steps are timed, and `run` is not called.
        start: fine-tunes this model instead of training a new one.
    """

    def __init__(
        self,
        settings: ModelSettings,
        corpus: Corpus,
        folder: Path | None,
        runtime: RuntimeSettings,
        start: FinetuneStart | None = None,
    ) -> None:
        self.settings, self.folder, self.runtime, self.start = settings, folder, runtime, start
        self.plan, self.world = start.train if start else settings.train, world()
        plan, vocabulary = self.plan, corpus.vocabulary
        check(plan)
        check_corpus(corpus, plan.seq_len)
        distributed.check(plan.batch_size, plan.grad_accum_steps, self.world.world_size)
        self.rows_at_once = plan.batch_size // self.world.world_size // plan.grad_accum_steps
        self.device = pick_device(runtime.device)
        self.kernel = KernelDispatcher(runtime.kernel)
        model = start.model if start else build_model(settings, vocabulary.vocab_size)
        self.model = model.to(self.device)
        saved = self.world.from_main(lambda: resume.load_latest(folder)) if folder else None
        if saved:
            self.model.load_state_dict(saved.model)
        loss_module = LossModule(start.extended if start else self.model, self.kernel)
        parallel = distributed.parallelize(loss_module, self.world)
        gpu, single = self.device.type == "cuda", self.world.world_size == 1
        required = runtime.compile is True
        self.compiles = should_compile(runtime.compile, self.device, self.world.world_size)
        self.collate = partial(collate, pad_targets=self.compiles or gpu, pin_memory=gpu)
        # A replay overwrites gradients in the memory of its CUDA graph, so they cannot be accumulated there.
        small = self.model.parameter_count() <= CUDA_GRAPH_MAX_PARAMETERS and plan.grad_accum_steps == 1
        if self.compiles and single:
            self.loss_module: Any = CompiledLoss(loss_module, self.kernel, gpu and small, required)
        else:  # the hooks of DDP break the graph
            self.loss_module = compile_module(parallel, fullgraph=False) if self.compiles else parallel
        self.optimizers = build_optimizers(self.model, plan, self.compiles and single, required)
        self.prefetcher = Prefetcher(self.micro_batches, plan.steps, PREFETCH_DEPTH if gpu else 0)
        self.writer = resume.CheckpointWriter(folder) if folder and self.world.is_main_process else None
        self.steps_done = 0
        self.losses: list[Tensor] = []
        self.log_history: list[dict[str, float]] = []
        self.speed: dict[str, float] = {}  # of this process' steps
        if saved:
            self.restore(saved)
        self.batches = Batches(
            corpus.split("train"),
            vocabulary,
            plan.seq_len,
            plan.batch_size,
            plan.synthetic_fraction,
            plan.query_fraction,
            plan.seed,
            plan.synthetic_task,
        )
        self.held_out = held_out_batches(corpus.split("validation"), vocabulary, plan)

    def restore(self, saved: resume.TrainingState) -> None:
        """Restores everything but the weights from a checkpoint."""
        saved.restore(self.optimizers)
        self.steps_done, self.log_history = int(saved.metadata["step"]), saved.metadata["log_history"]
        # Saved losses are sums over the ranks, and reports sum over the ranks again.
        losses = saved.metadata["losses"]
        losses = losses if self.world.is_main_process else [0.0] * len(losses)
        self.losses = [torch.tensor(loss, device=self.device) for loss in losses]

    def run(
        self, report: Report = lambda step, metrics: None, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Trains to the end, from the last checkpoint if there is one, and returns the metadata of the final model.

        Raises:
            TrainingInterrupted: after writing a checkpoint, if `stop` returns True before a step.
        """
        final = self.folder / "final" if self.folder else Path()
        metadata = self.world.from_main(lambda: checkpoints.read_metadata(final))
        if metadata is not None:
            return metadata
        try:
            step, status = self.steps(report, stop)
            stop()  # which raises if another process has taken the training over
            if self.writer:
                self.writer.wait()
        finally:
            self.prefetcher.close()
            if self.writer:
                self.writer.close()
            if self.compiles:
                free_compiled_code(self.device)
        return self.finish(step, status)

    def steps(self, report: Report, stop: Callable[[], bool]) -> tuple[int, str]:
        """Runs the remaining steps; returns the total number of steps, and "ok" or "diverged"."""
        step, losses, plan = self.steps_done, self.losses, self.plan
        tokens = plan.batch_size * plan.seq_len
        meter = ThroughputMeter(self.model, tokens, plan.seq_len, self.device, self.world.world_size)
        meter.start(step)
        due = time.monotonic() + 60 * self.runtime.checkpoint_minutes
        while step < plan.steps:
            # One message between the ranks for both; the clock of any of them counts.
            action = self.world.all_reduce_max(STOP if stop() else SAVE * (time.monotonic() >= due))
            if action:
                self.save(step, losses)
                due = time.monotonic() + 60 * self.runtime.checkpoint_minutes
            if action == STOP:
                if self.writer:
                    self.writer.wait()
                self.world.any_rank(False)  # torchrun ends the others when one has ended
                raise TrainingInterrupted
            if self.writer:
                self.writer.check()
            losses.append(self.step(step))
            step += 1
            interval = self.runtime.checkpoint_interval
            if interval and step % interval == 0 and step < plan.steps:
                self.save(step, losses)
            validating = step % plan.val_interval == 0 or step == plan.steps
            if step % LOG_INTERVAL and not validating:
                continue
            loss = self.world.all_reduce_sum(torch.stack(losses).mean().item())
            losses.clear()
            speed = meter.read(step)
            self.speed = meter.total()
            metrics = {"step": step, "loss": loss, "lr": plan.lr * lr_multiplier(plan, step - 1)}
            if not math.isfinite(loss):
                return step, "diverged"
            if validating:
                metrics["validation_loss"] = self.validate()
            self.log_history.append(metrics)
            report(step, {**metrics, **speed})
            meter.start(step)
        return step, "ok"

    def step(self, step: int) -> Tensor:
        """Runs one optimizer step; returns this rank's part of the loss in nats per scored target, on the device."""
        self.model.train()
        # Random draws of a scheme are a function of the step, so that a run can be continued exactly.
        torch.manual_seed(self.plan.seed * 1_000_003 + step)
        n_targets, micro_batches = self.prefetcher.get(step)
        losses = []
        if isinstance(self.loss_module, CompiledLoss) and self.loss_module.use_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        for index, tensors in enumerate(micro_batches):
            with self.no_sync(index + 1 < len(micro_batches)):
                # The quotient is a new tensor: a CUDA graph writes its loss to the same memory every time.
                loss = self.loss(tensors) / n_targets
                # DDP averages gradients over the ranks, and their sum is needed.
                (loss * self.world.world_size).backward()
            losses.append(loss.detach())
        if self.plan.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.max_grad_norm)
        for optimizer, peak_lr in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak_lr * lr_multiplier(self.plan, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    def micro_batches(self, step: int) -> tuple[int, list[tuple[Tensor, ...]]]:
        """Returns the number of scored targets of a step on all ranks, and this rank's micro-batches as CPU tensors."""
        batch = self.batches.get_batch(step + (self.start.steps if self.start else 0))
        own = batch.rows(self.world.shard(self.plan.batch_size))
        return int(batch.loss_mask.sum()), [self.collate(part) for part in own.split(self.rows_at_once)]

    def no_sync(self, more: bool) -> AbstractContextManager[Any]:
        """Returns a context in which DDP does not reduce gradients, if more micro-batches follow."""
        return self.loss_module.no_sync() if more and hasattr(self.loss_module, "no_sync") else nullcontext()

    def loss(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Returns the sum of the losses of a collated batch in nats, on the device."""
        inputs = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        with autocast_context(self.device, self.plan.dtype):
            return self.loss_module(*inputs)

    @torch.no_grad()
    def validate(self) -> float:
        """Returns the loss on held-out text or synthetic sequences, in nats per scored token."""
        self.model.eval()
        nats, count = 0.0, self.plan.val_batches
        for index in range(self.world.rank, count, self.world.world_size):
            batch = self.held_out.get_batch(index)
            losses = [self.loss(self.collate(part)).item() for part in batch.split(self.rows_at_once)]
            nats += sum(losses) / int(batch.loss_mask.sum())
        return self.world.all_reduce_sum(nats) / count

    def save(self, step: int, losses: list[Tensor]) -> None:
        """Starts to write a checkpoint, with the losses that are not reported yet."""
        metadata = {
            "log_history": self.log_history,
            "losses": [self.world.all_reduce_sum(loss.item()) for loss in losses],
        }
        if self.writer:
            self.writer.save(step, self.model, self.optimizers, metadata)

    def finish(self, step: int, status: str) -> dict[str, Any]:
        """Writes the final model, deletes the checkpoints, and returns the metadata."""
        plan, compiled = self.plan, getattr(self.loss_module, "status", None)
        metadata = {
            "status": status,
            "step": step,
            # Of the pretraining alone, so that all extensions of a model have the same number in a figure.
            "train_tokens": self.start.tokens if self.start else step * plan.batch_size * plan.seq_len,
            "n_params": self.model.parameter_count(),
            "kernel": self.kernel.ran,
            "compiled": compiled or str(self.compiles).lower(),
            "settings": asdict(self.settings) | ({"finetune": asdict(plan)} if self.start else {}),
            **({"extension": asdict(self.start.extension)} if self.start else {}),
            "log_history": self.log_history,
        }
        if self.folder and self.world.is_main_process:
            resume.finish(self.folder, self.model, metadata)
        return metadata
