"""Measures cells. The rows of a cell depend on the cell (to rounding: docs/tasks.md); a failure that belongs to the cell is a row too."""

from __future__ import annotations

import datetime
import logging
import math
import platform
import resource
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import torch

from posbench.config.schema import RuntimeSettings
from posbench.data.corpus import Corpus
from posbench.errors import DataError, PosbenchError, UndefinedError, format_error
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.chunks import ChunkEnsemble
from posbench.lm.generation import check_numbers
from posbench.lm.interface import Prompt, Scores
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT
from posbench.plan.cell import Cell, FineTuning, ModelPlan
from posbench.plan.feasibility import cpu_bytes
from posbench.plan.plan import apply_extension
from posbench.plan.versions import check_cell
from posbench.results.rows import RowStore
from posbench.runtime.device import autocast_context, free_memory, pick_device
from posbench.runtime.distributed import world
from posbench.runtime.oom import is_out_of_memory
from posbench.tasks.task import Task
from posbench.training import checkpoints
from posbench.training.trainer import FinetuneStart, TrainingInterrupted, build_model
from posbench.version import __version__

_log = logging.getLogger(__name__)


class EvaluatedModel:
    """A trained model on its device, to be measured cell by cell.

    Args:
        folder: the folder of the model, in which final/ has its weights.

    Raises:
        DataError: if there is no trained model in `folder`.
    """

    def __init__(self, plan: ModelPlan, folder: Path, corpus: Corpus, runtime: RuntimeSettings) -> None:
        metadata, weights = world().from_main(lambda: checkpoints.read(folder / "final", "model"))
        if metadata is None or weights is None:
            raise DataError(
                f"no trained model of {plan.label} at {folder}: run posbench train with the same settings first"
            )
        self.plan, self.corpus, self.runtime, self.metadata = plan, corpus, runtime, metadata
        self.max_tokens_per_batch = runtime.max_tokens_per_batch
        self.should_stop: Callable[[], bool] = lambda: False
        self.device = pick_device(runtime.device)
        self.model: GPT = build_model(plan.settings, corpus.vocabulary.vocab_size)
        self.model.load_state_dict(weights)
        self.model.to(self.device)

    def evaluate(self, cell: Cell, store: RowStore) -> str:
        """Measures a cell, stores its rows and returns their status.

        Raises:
            TrainingInterrupted: without rows, if `should_stop` returns True after a prompt; not on several ranks, which
                stop between cells.
        """
        started = time.monotonic()
        kernel = KernelDispatcher(self.runtime.kernel)
        task = instantiate(cell.task.build, Task)
        check_cell(cell, task)
        measures: list[dict[str, Any]] = []
        status = "ok" if self.metadata["status"] == "ok" else "diverged"
        if status == "ok":
            try:
                measures = self.run_task(cell, task, kernel)
            except UndefinedError:
                status = "undefined"
            except FloatingPointError:
                status = "diverged"
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                status = "out_of_memory"
            # A sum over the finite rest would be a better number than that of all documents.
            if not all(math.isfinite(measure["value_sum"]) for measure in measures):
                status, measures = "diverged", []
            if status == "diverged":
                _log.warning("%s: a number is not finite at %d tokens", self.plan.label, cell.length)
        if not measures:
            nothing = {"value_sum": None, "n": 0, "doc_id": "", "example": 0}
            measures = [{"metric": task.metric, "unit": task.unit, **nothing}]
        ran = {name for part in world().all_gather_object(kernel.ran) for name in part.split("+")} - {"none"}
        columns = {**self.columns(cell, task), "status": status, "kernel": "+".join(sorted(ran)) or "none"}
        if world().is_main_process:
            rows = [{**columns, **measure} for measure in measures]
            store.write(cell.id, rows, self.run_metadata(status, started) | cell.builds)
        return status

    def run_task(self, cell: Cell, task: Task, kernel: KernelDispatcher) -> list[dict[str, Any]]:
        """Returns the measured columns of the rows of a cell; reduces the batch as long as memory is short.

        Raises:
            FloatingPointError: if a logit of the model is not a number.
        """
        train_len = self.plan.settings.train.seq_len
        prompts = [
            self.adapt_prompt(task, prompt)
            for prompt in task.prompts(cell.length, self.corpus, train_len, cell.seed)
        ]
        whole = 1 + max((prompt.length for prompt in prompts), default=0)
        # Passes over a chunk, or over continuations of a context in memory, read less than a whole sequence.
        has_shorter_passes = cell.extension.ensemble is not None or any(
            len(prompt.continuations) > 1 for prompt in prompts
        )
        limits = batch_limits(self.max_tokens_per_batch, whole, has_shorter_passes)
        for limit, smaller in zip(limits, [*limits[1:], None], strict=True):
            if limit >= whole:  # a limit of 1 is for this cell alone, the others are kept for later cells
                self.max_tokens_per_batch = limit
            try:
                results = self.results(cell, task, prompts, kernel, limit)
                break
            except Exception as error:  # the same on every rank
                if smaller is None or not is_out_of_memory(error):
                    raise
            # After the except block, because the frames of the error keep its tensors alive.
            _log.warning(
                "out of memory with runtime.max_tokens_per_batch=%d at %d tokens: continuing with %d",
                limit,
                cell.length,
                smaller,
            )
            free_memory()
        return [vars(measure) for measure in task.process_all_results(zip(prompts, results, strict=True))]

    def results(
        self, cell: Cell, task: Task, prompts: list[Prompt], kernel: KernelDispatcher, max_tokens: int
    ) -> list[Any]:
        """Returns the answers of the model to the prompts, in order; `max_tokens` limits one forward pass.

        Raises:
            FloatingPointError: if a log-probability is not a number.
        """
        found: list[Any] = []
        for length, some in groupby(prompts, lambda prompt: prompt.extension_length or cell.length):
            lm = self.lm_or_ensemble(replace(cell, length=length), kernel, max_tokens)
            found += run_distributed(getattr(lm, task.output_type), list(some), self.should_stop)
        for result in found:
            if isinstance(result, Scores):
                check_numbers(torch.from_numpy(result.logprob))
        return found

    def adapt_prompt(self, task: Task, prompt: Prompt) -> Prompt:
        """Returns the prompt as the model reads it."""
        return prompt

    def lm_or_ensemble(self, cell: Cell, kernel: KernelDispatcher, max_tokens: int) -> Any:
        """Returns the language model of a cell, inside its ensemble if it has one."""
        lm = self.lm(cell, kernel, max_tokens)
        if cell.extension.ensemble is None:
            return lm
        return instantiate(cell.extension.ensemble, ChunkEnsemble, lm, self.corpus.vocabulary.bos)

    def lm(self, cell: Cell, kernel: KernelDispatcher, max_tokens: int) -> Any:
        """Returns the language model of a cell, with its extension."""
        settings = self.plan.settings
        length = cell.length
        if cell.extension.ensemble is not None:  # which reads at most the training length at once
            length = min(length, settings.train.seq_len)
        scheme = apply_extension(self.model.scheme, cell.extension, settings, length)
        return NativeLM(
            self.model.with_scheme(scheme),
            settings.train.seq_len,
            kernel,
            partial(autocast_context, self.device, cell.dtype),
            max_tokens,
        )

    def finetune_start(self, tuning: FineTuning) -> FinetuneStart:
        """Returns the start of a fine-tuning of this model."""
        length = tuning.train.seq_len
        scheme = apply_extension(self.model.scheme, tuning.extension, self.plan.settings, length)
        extended = self.model.with_scheme(scheme)
        steps, tokens = self.metadata["step"], self.metadata["train_tokens"]
        return FinetuneStart(self.model, extended, tuning.extension, tuning.train, steps, tokens)

    def columns(self, cell: Cell, task: Task) -> dict[str, Any]:
        """Returns the columns that all rows of a cell share."""
        settings = self.plan.settings
        return {
            "cell_id": cell.id,
            "model_id": self.plan.id,
            "scheme": settings.scheme.name,
            "extension": cell.extension.name,
            "model_size": settings.size.name,
            "n_params": self.metadata["n_params"],
            "train_len": settings.train.seq_len,
            "train_tokens": self.metadata["train_tokens"],
            "train_seed": settings.train.seed,
            "corpus": settings.data.name,
            "task": task.task,
            "variant": task.variant,
            "protocol": task.protocol,
            "eval_len": cell.length,
            "eval_seed": cell.seed,
            "dtype": cell.dtype,
        }

    def run_metadata(self, status: str, started: float) -> dict[str, Any]:
        """Returns metadata of this run, which the rows of the cell do not depend on."""
        cuda = self.device.type == "cuda"
        return {
            "status": status,
            "seconds": round(time.monotonic() - started, 3),
            "device": device_name(self.device),
            "processes_per_gpu": processes_per_gpu(self.runtime),
            # of the process since its start
            "process_peak_bytes": torch.cuda.max_memory_allocated(self.device)
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "threads": torch.get_num_threads(),
            "posbench": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def batch_limits(first: int, whole: int, has_shorter_passes: bool) -> list[int]:
    """Returns the limits in tokens of a forward pass that are tried in turn while memory is short.

    Args:
        first: the limit to begin with, which is halved as long as a batch of sequences of `whole` tokens gets smaller.
        has_shorter_passes: whether batches of shorter sequences get smaller below that; the last limit is then 1.
    """
    limits = [first]
    while limits[-1] // 2 >= whole:
        limits.append(limits[-1] // 2)
    return [*limits, 1] if has_shorter_passes and limits[-1] > 1 else limits


def run_distributed(
    method: Callable[[list[Prompt]], Iterable[Any]], prompts: list[Prompt], should_stop: Callable[[], bool]
) -> list[Any]:
    """Returns the results for all prompts, which the ranks share; an error of one rank is raised on every rank."""
    here = world()
    if here.world_size == 1:
        results = []
        for result in method(prompts):
            results.append(result)
            if should_stop():
                raise TrainingInterrupted
        return results
    own: Any
    try:
        own = list(method(prompts[here.shard(len(prompts))]))
    except Exception as error:  # raised here, it would leave the other ranks waiting
        own = error.with_traceback(None)  # frames of the traceback keep tensors of the pass alive
        if not (isinstance(error, PosbenchError | FloatingPointError) or is_out_of_memory(error)):
            _log.warning("%s", traceback.format_exc())
            own = RuntimeError(format_error(error))  # errors of a compiler cannot be sent to other processes
    parts = here.all_gather_object(own)
    for part in parts:
        if isinstance(part, Exception):
            raise part
    return list(chain(*parts))


def processes_per_gpu(runtime: RuntimeSettings) -> int:
    """Returns the largest number of worker processes that share a GPU and its memory."""
    if runtime.launcher == "ray":
        return max(1, int(1 / runtime.ray.gpus)) if runtime.ray.gpus else 1
    if runtime.launcher != "local":
        return 1
    if not runtime.num_workers or runtime.device == "cpu":
        return runtime.workers_per_gpu
    gpus = 1 if runtime.device.startswith("cuda:") else torch.cuda.device_count()
    return math.ceil(runtime.num_workers / gpus) if gpus else 1


def device_name(device: torch.device) -> str:
    """Returns the name of a GPU, or the architecture and the memory of the CPU's machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {cpu_bytes() / 2**30:.0f} GB"
