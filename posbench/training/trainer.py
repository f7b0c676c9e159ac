"""Pretraining one model: a plain loop, exact to continue from its last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posbench.config.checks import check
from posbench.config.schema import ModelSettings, RuntimeSettings, TrainSettings
from posbench.data.batches import Batch, Batches
from posbench.data.corpus import Corpus, check_corpus
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.runtime import distributed
from posbench.runtime.device import autocast_context, pick_device
from posbench.runtime.distributed import world
from posbench.training import checkpoints, resume
from posbench.training.compile import LAUNCH_BOUND, CompiledLoss, compile_module, forget, should_compile
from posbench.training.loss_module import LossModule, collate
from posbench.training.optimizers import build_optimizers, lr_multiplier
from posbench.training.prefetch import Prefetcher
from posbench.training.throughput import ThroughputMeter

# Called with (step, metrics) about every REPORT steps and at each validation.
Report = Callable[[int, dict[str, float]], None]
REPORT = 25
# Batches made ahead for a GPU; a CPU that trains has no time to spare beside it.
PREFETCH_DEPTH = 2


def build_model(settings: ModelSettings, vocabulary: int) -> GPT:
    """The untrained model of these settings, on the CPU."""
    one = settings.size
    size = Size(one.n_layers, one.d_model, one.n_heads, one.mlp_ratio, one.head_dim)
    shape = size.shape(settings.train.seq_len)
    scheme = build_scheme(settings.scheme.build, shape, settings.train.seed)
    return GPT(size, vocabulary, scheme, settings.train.seed)


@dataclass(frozen=True, eq=False)
class FinetuneStart:
    """Where fine-tuning starts.

    Attributes:
        model: a trained model, whose weights become the fine-tuned ones.
        extended: the same model with an extension around its scheme, as it is fine-tuned.
        train: how training goes on, by fresh optimizers.
        steps, tokens: what was trained and read before; the data's order goes on from there.
    """

    model: GPT
    extended: GPT
    train: TrainSettings
    steps: int
    tokens: int


class TrainingInterrupted(Exception):  # noqa: N818 - it is no error
    """Asked to stop; what was done is in a checkpoint."""


class Trainer:
    """One training run and its folder: final/ when it is done, step-N/ on the way."""

    def __init__(
        self,
        settings: ModelSettings,
        corpus: Corpus,
        folder: Path,
        runtime: RuntimeSettings,
        start: FinetuneStart | None = None,
    ) -> None:
        self.settings, self.folder, self.runtime, self.start = settings, folder, runtime, start
        self.plan, self.world = start.train if start else settings.train, world()
        check(self.plan)
        check_corpus(corpus, self.plan.seq_len)
        distributed.check(
            runtime.data_parallel, self.plan.batch_size, self.plan.grad_accum_steps, self.world.world_size
        )
        self.device = pick_device(runtime.device)
        self.kernel = KernelDispatcher(runtime.kernel)
        model = start.model if start else build_model(settings, corpus.vocabulary.vocab_size)
        self.model = model.to(self.device)
        self.log_history: list[dict[str, float]] = []
        saved = resume.load_latest(folder, self.device, self.world)
        if saved:
            self.model.load_state_dict(saved.model)
        loss_module = LossModule(start.extended if start else self.model, self.kernel)
        parallel = distributed.parallelize(
            loss_module, list(self.model.blocks), runtime.data_parallel, self.world
        )
        gpu, alone = self.device.type == "cuda", self.world.world_size == 1
        self.compiles = should_compile(runtime.compile, self.device)
        self.collate = partial(collate, pad_targets=self.compiles or gpu, pin_memory=gpu)
        # Gradients in the memory of a CUDA graph last until its next replay: no step of several parts.
        small = self.model.parameter_count() <= LAUNCH_BOUND and self.plan.grad_accum_steps == 1
        if self.compiles and alone:
            self.loss_module: Any = CompiledLoss(
                loss_module, self.kernel, gpu and small, runtime.compile is True
            )
        else:  # what divides a module stands between its graphs
            self.loss_module = compile_module(parallel, fullgraph=False) if self.compiles else parallel
        self.optimizers = build_optimizers(self.model, self.plan, self.compiles and alone)
        self.prefetcher = Prefetcher(self.micro_batches, self.plan.steps, PREFETCH_DEPTH if gpu else 0)
        self.done = 0
        self.losses: list[Tensor] = []
        if saved:
            saved.into(self.optimizers)
            self.done, self.log_history = int(saved.metadata["step"]), saved.metadata["log_history"]
            # Sums over the ranks, which are summed again when they are reported.
            said = (
                saved.metadata["losses"]
                if self.world.is_main_process
                else [0.0] * len(saved.metadata["losses"])
            )
            self.losses = [torch.tensor(loss, device=self.device) for loss in said]
        plan = self.plan
        self.batches = Batches(
            corpus.split("train"),
            corpus.vocabulary,
            plan.seq_len,
            plan.batch_size,
            plan.synthetic_fraction,
            plan.query_fraction,
            plan.seed,
            plan.synthetic_task,
        )
        # Held-out text alone, the same for every seed.
        self.held_out = Batches(
            corpus.split("validation"), corpus.vocabulary, plan.seq_len, plan.batch_size, 0.0, 0.0, 0
        )

    def run(
        self, report: Report = lambda step, metrics: None, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; the metadata of the final model.

        Raises:
            TrainingInterrupted: after a checkpoint, once `stop` says so.
        """
        done = checkpoints.read_metadata(self.folder / "final")
        if done is not None:
            return done
        try:
            step, status = self.steps(report, stop)
        finally:
            self.prefetcher.close()
            if self.compiles:
                forget(self.device)
        return self.finish(step, status)

    def steps(self, report: Report, stop: Callable[[], bool]) -> tuple[int, str]:
        """All that are left; how many were taken altogether, and how it ended."""
        step, losses, status = self.done, self.losses, "ok"
        plan, tokens = self.plan, self.plan.batch_size * self.plan.seq_len
        meter = ThroughputMeter(
            self.model, tokens, plan.seq_len, self.device, plan.dtype, self.world.world_size
        )
        meter.start(step)
        while step < self.plan.steps:
            if self.world.any_rank(stop()):
                self.save(step, losses)
                raise TrainingInterrupted
            losses.append(self.step(step))
            step += 1
            if step % self.runtime.checkpoint_interval == 0 and step < self.plan.steps:
                self.save(step, losses)
            validating = step % self.plan.val_interval == 0 or step == self.plan.steps
            if step % REPORT and not validating:
                continue
            loss = self.world.all_reduce_sum(torch.stack(losses).mean().item())
            losses.clear()
            speed = meter.read(step)
            metrics = {"step": step, "loss": loss, "lr": self.plan.lr * lr_multiplier(self.plan, step - 1)}
            if not math.isfinite(loss):
                status = "diverged"
                break
            if validating:
                metrics["validation_loss"] = self.validate()
            self.log_history.append(metrics)
            report(step, {**metrics, **speed})
            meter.start(step)
        return step, status

    def step(self, step: int) -> Tensor:
        """One update; the loss in nats per counted target, still on the device."""
        self.model.train()
        # Whatever a scheme draws while training is a function of the step, so that continuing is exact.
        torch.manual_seed(self.plan.seed * 1_000_003 + step)
        n_targets, micro_batches = self.prefetcher.get(step)
        losses = []
        if isinstance(self.loss_module, CompiledLoss) and self.loss_module.use_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        for index, tensors in enumerate(micro_batches):
            with self.no_sync(index + 1 < len(micro_batches)):
                # The quotient is a new tensor: a CUDA graph writes its loss to the same memory every time.
                loss = self.loss(tensors) / n_targets
                # Gradients are averaged over the ranks.
                (loss * self.world.world_size).backward()
            losses.append(loss.detach())
        if self.plan.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.max_grad_norm)
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * lr_multiplier(self.plan, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    def micro_batches(self, step: int) -> tuple[int, list[tuple[Tensor, ...]]]:
        """Returns the number of scored targets of a step on all ranks, and this rank's micro-batches as CPU tensors."""
        batch = self.batches.get_batch(step + (self.start.steps if self.start else 0))
        mine = self.world.shard(self.plan.batch_size)
        ids, loss_mask = batch.ids[mine], batch.loss_mask[mine]
        size = len(ids) // self.plan.grad_accum_steps
        rows = [slice(start, start + size) for start in range(0, len(ids), size)]
        return int(batch.loss_mask.sum()), [self.collate(Batch(ids[part], loss_mask[part])) for part in rows]

    def no_sync(self, more: bool) -> AbstractContextManager[Any]:
        """Returns a context that keeps gradients on their rank if more micro-batches follow."""
        return self.loss_module.no_sync() if more and hasattr(self.loss_module, "no_sync") else nullcontext()

    def loss(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Returns the sum over the scored targets of a collated batch in nats, on the device."""
        inputs = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        with autocast_context(self.device, self.plan.dtype):
            return self.loss_module(*inputs)

    @torch.no_grad()
    def validate(self) -> float:
        """Nats per token on held-out text."""
        self.model.eval()
        nats, count = 0.0, self.plan.val_batches
        # As many passes on each rank, where one holds parts of the weights alone.
        for first in range(0, count, self.world.world_size):
            index = first + self.world.rank
            batch = self.held_out.get_batch(min(index, count - 1))
            loss = self.loss(self.collate(batch)).item() / int(batch.loss_mask.sum())
            nats += loss if index < count else 0.0
        return self.world.all_reduce_sum(nats) / count

    def save(self, step: int, losses: list[Tensor]) -> None:
        """A checkpoint to continue from, with the losses not reported yet."""
        metadata = {
            "log_history": self.log_history,
            "losses": [self.world.all_reduce_sum(loss.item()) for loss in losses],
        }
        resume.save(self.folder, step, self.model, self.optimizers, metadata, self.world)

    def finish(self, step: int, status: str) -> dict[str, Any]:
        """Write the final model and drop what was only there to continue."""
        metadata = {
            "status": status,
            "step": step,
            # Of the pretraining: all extensions of a model share it, and a figure has one.
            "train_tokens": self.start.tokens
            if self.start
            else step * self.plan.batch_size * self.plan.seq_len,
            "n_params": self.model.parameter_count(),
            "kernel": self.kernel.ran,
            "compiled": self.loss_module.how
            if isinstance(self.loss_module, CompiledLoss)
            else str(self.compiles).lower(),
            "settings": asdict(self.settings) | ({"finetune": asdict(self.plan)} if self.start else {}),
            "log_history": self.log_history,
        }
        resume.finish(self.folder, self.model, metadata, self.world)
        return metadata
