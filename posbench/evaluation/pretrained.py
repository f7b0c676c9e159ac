"""Loads pretrained models, so that they are measured like models that posbench trains."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from posbench.config.schema import RuntimeSettings
from posbench.data.corpus import Corpus
from posbench.errors import LengthError, UndefinedError
from posbench.evaluation.evaluator import EvaluatedModel
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm import hf_check
from posbench.lm.hf_config import PretrainedInfo, load_hf_model
from posbench.lm.hf_weights import from_hf_state_dict
from posbench.lm.hugging_face import HFLM
from posbench.lm.interface import Prompt
from posbench.plan.cell import Cell, ModelPlan
from posbench.plan.plan import apply_extension, build_untrained_scheme
from posbench.position.scheme import PositionScheme
from posbench.runtime.device import autocast_context, pick_device
from posbench.tasks.task import Task


def defined_lengths(scheme: PositionScheme, lengths: list[int], train_len: int) -> list[int]:
    """Returns the lengths, each reduced to the training length if the scheme is undefined there, as a table is."""

    def defined(length: int) -> int:
        try:
            scheme.check(length)
        except (LengthError, UndefinedError):
            return min(length, train_len)
        return length

    return [defined(length) for length in lengths]


class PretrainedModel(EvaluatedModel):
    """A pretrained model: converted to GPT, or a black box that runs transformers' implementation."""

    def __init__(
        self, plan: ModelPlan, pretrained: PretrainedInfo, corpus: Corpus, runtime: RuntimeSettings
    ) -> None:
        self.plan, self.corpus, self.runtime = plan, corpus, runtime
        self.max_tokens_per_batch, self.should_stop = runtime.max_tokens_per_batch, lambda: False
        self.device, self.dtype = pick_device(runtime.device), pretrained.settings.dtype
        hf_model = load_hf_model(pretrained).to(self.device)
        self.corpus = replace(corpus, vocabulary=replace(corpus.vocabulary, eos_ids=plan.eos_ids))
        count = sum(parameter.numel() for parameter in hf_model.parameters())
        self.metadata = {"status": "ok", "n_params": count, "train_tokens": 0}
        self.opening: dict[str, Any] = {
            "first_token": f"every prompt begins with id {corpus.vocabulary.bos}, at every length",
            "eos_ids": list(plan.eos_ids),
        }
        self.black_box: torch.nn.Module | None = hf_model
        if pretrained.architecture is None:
            return
        scheme = build_untrained_scheme(plan.settings)
        lengths = defined_lengths(
            scheme, hf_check.check_lengths(pretrained.train_len, count, self.device), pretrained.train_len
        )
        texts = hf_check.check_texts(lengths, pretrained.vocab_size, self.device)
        expected = hf_check.transformers_logits(hf_model, texts, pretrained.label)
        self.black_box, weights = None, hf_model.state_dict()
        del hf_model
        self.model = from_hf_state_dict(
            weights, pretrained.architecture, scheme, pretrained.label, pretrained.family
        )
        self.model.to(self.device)
        difference = hf_check.largest_difference([self.last_logits(ids) for ids in texts], expected)
        hf_check.check_difference(difference, self.dtype, lengths, pretrained.label)
        self.opening |= {
            "difference_from_transformers": difference,
            "difference_lengths": lengths,
        }

    def last_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Computes the (POSITIONS, V) float32 logits of the converted model with its own scaling, on the CPU."""
        assert self.plan.pretrained is not None
        length = ids.shape[1]
        scheme = apply_extension(self.model.scheme, self.plan.pretrained.scaling, self.plan.settings, length)
        with torch.inference_mode():
            model = self.model.with_scheme(scheme)
            hidden, _ = model(ids, kernel=KernelDispatcher(self.runtime.kernel), length=length)
            return model.head(hidden[0, -hf_check.POSITIONS :]).float().cpu()

    def adapt_prompt(self, task: Task, prompt: Prompt) -> Prompt:
        return task.begin_with(prompt, self.corpus.vocabulary.bos)

    def run_metadata(self, status: str, started: float) -> dict[str, Any]:
        return super().run_metadata(status, started) | self.opening

    def lm(self, cell: Cell, kernel: KernelDispatcher, max_tokens: int) -> Any:
        if self.black_box is None:
            return super().lm(cell, kernel, max_tokens)
        kernel.note("transformers")
        return HFLM(
            self.black_box,
            self.plan.settings.train.seq_len,
            partial(autocast_context, self.device, cell.dtype),
            max_tokens,
        )

    def columns(self, cell: Cell, task: Task) -> dict[str, Any]:
        """Returns the shared columns; with bfloat16 weights, the computation is in bfloat16 too."""
        columns = super().columns(cell, task)
        return columns | ({"dtype": self.dtype} if self.dtype != "float32" else {})


def load_evaluated_model(
    plan: ModelPlan, folder: Path, corpus: Corpus, runtime: RuntimeSettings
) -> EvaluatedModel:
    """Loads the model of a plan, from `folder` unless it is pretrained."""
    if plan.pretrained:
        return PretrainedModel(plan, plan.pretrained, corpus, runtime)
    return EvaluatedModel(plan, folder, corpus, runtime)
