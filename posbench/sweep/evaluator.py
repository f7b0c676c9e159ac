"""Measuring cells: rows that are a pure function of the cell, whatever went wrong among them."""

from __future__ import annotations

import datetime
import logging
import platform
import resource
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from posbench.config.schema import RuntimeSettings
from posbench.data.corpus import Corpus
from posbench.errors import DataError, UndefinedError
from posbench.instantiate import build
from posbench.kernels.dispatcher import Recording
from posbench.lm.interface import Prompt
from posbench.lm.native import CheckpointSubject
from posbench.model.gpt import GPT
from posbench.results.rows import Store
from posbench.runtime.device import pick_device, precision
from posbench.runtime.distributed import world
from posbench.runtime.oom import is_shortage
from posbench.sweep.plan import Cell, ModelPlan, extended
from posbench.tasks.task import Task
from posbench.training import checkpoints
from posbench.training.trainer import build_model

_log = logging.getLogger(__name__)


class Trained:
    """A model as training left it.

    Raises:
        DataError: if there is none at `folder`.
    """

    def __init__(self, plan: ModelPlan, folder: Path, corpus: Corpus, runtime: RuntimeSettings) -> None:
        found = checkpoints.facts(folder / "final")
        weights = checkpoints.tensors(folder / "final", "model") if found is not None else None
        if found is None or weights is None:
            raise DataError(
                f"no trained model of {plan.label} at {folder}: run scripts/train.py with the same settings first"
            )
        self.plan, self.corpus, self.runtime, self.facts = plan, corpus, runtime, found
        self.tokens_per_pass = runtime.tokens_per_pass
        self.device = pick_device(runtime.device)
        self.model: GPT = build_model(plan.settings, corpus.vocabulary.size)
        self.model.load_state_dict(weights)
        self.model.to(self.device)

    def evaluate(self, cell: Cell, store: Store) -> str:
        """Measure a cell and store its rows; the status."""
        started = time.monotonic()
        kernel = Recording(self.runtime.kernel)
        task: Task = build(cell.task.build)
        measures: list[dict[str, Any]] = []
        status = "ok" if self.facts["status"] == "ok" else "diverged"
        if status == "ok":
            try:
                measures = self.measure(cell, task, kernel)
            except UndefinedError:
                status = "undefined"
            except Exception as error:
                if not is_shortage(error):
                    raise
                status = "out_of_memory"
        if not measures:
            measures = [
                {
                    "metric": task.metric,
                    "value": None,
                    "n": 0,
                    "unit": task.unit,
                    "document": "",
                    "example": 0,
                }
            ]
        shared = {**self.columns(cell, task), "status": status, "kernel": kernel.ran}
        if world().leads:
            store.write(
                cell.id, [{**shared, **measure} for measure in measures], self.sidecar(status, started)
            )
        return status

    def measure(self, cell: Cell, task: Task, kernel: Recording) -> list[dict[str, Any]]:
        """The measured part of the rows."""
        train_len = self.plan.settings.train.length
        prompts = list(task.prompts(cell.length, self.corpus, train_len, cell.seed))
        longest = max((prompt.length for prompt in prompts), default=0)
        while True:
            try:
                answers = shared_out(getattr(self.asked(cell, kernel), task.asks), prompts)
                break
            except Exception as error:  # the same one on every rank
                if not is_shortage(error) or self.tokens_per_pass < 2 * (longest + 1):
                    raise
            # Not while the error is held, whose frames hold the memory. What fits is kept for the cells to come.
            self.tokens_per_pass //= 2
            _log.warning(
                "no memory for runtime.tokens_per_pass=%d at %d tokens: going on with %d",
                2 * self.tokens_per_pass,
                cell.length,
                self.tokens_per_pass,
            )
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return [vars(measure) for measure in task.measures(zip(prompts, answers, strict=True))]

    def asked(self, cell: Cell, kernel: Recording) -> Any:
        """Whom a task asks: the model, or an ensemble around it."""
        subject = self.subject(cell, kernel)
        if cell.extension.ensemble is None:
            return subject
        return build(cell.extension.ensemble, subject, self.corpus.vocabulary.bos)

    def subject(self, cell: Cell, kernel: Recording) -> Any:
        """The model as a cell asks for it."""
        settings = self.plan.settings
        return CheckpointSubject(
            self.model,
            extended(self.model.scheme, cell.extension, settings, cell.length),
            settings.train.length,
            kernel,
            precision(self.device, cell.dtype),
            self.tokens_per_pass,
        )

    def columns(self, cell: Cell, task: Task) -> dict[str, Any]:
        """What all rows of a cell have in common."""
        settings = self.plan.settings
        return {
            "cell": cell.id,
            "model": self.plan.id,
            "scheme": settings.scheme.name,
            "extension": cell.extension.name,
            "size": settings.size.name,
            "n_params": self.facts["n_params"],
            "train_len": settings.train.length,
            "train_tokens": self.facts["train_tokens"],
            "train_seed": settings.train.seed,
            "corpus": settings.data.name,
            "task": task.task,
            "variant": task.variant,
            "protocol": task.protocol,
            "eval_len": cell.length,
            "eval_seed": cell.seed,
            "dtype": cell.dtype,
        }

    def sidecar(self, status: str, started: float) -> dict[str, Any]:
        """What is true of this run and not of the cell."""
        cuda = self.device.type == "cuda"
        return {
            "status": status,
            "seconds": round(time.monotonic() - started, 3),
            "device": device_name(self.device),
            "peak_bytes": torch.cuda.max_memory_allocated(self.device)
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "threads": torch.get_num_threads(),
            "posbench": version("posbench"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def shared_out(answer: Callable[[list[Prompt]], Iterable[Any]], prompts: list[Prompt]) -> list[Any]:
    """The answers to all prompts; ranks share them, and what fails on one fails on all."""
    here = world()
    if here.size == 1:
        return list(answer(prompts))
    mine: Any
    try:
        mine = list(answer(prompts[here.portion(len(prompts))]))
    except Exception as error:  # the others would wait for ever
        mine = error
    said = here.gathered(mine)
    for part in said:
        if isinstance(part, Exception):
            raise part
    return list(chain(*said))


def device_name(device: torch.device) -> str:
    """What computes: the GPU's model, or the kind of CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
