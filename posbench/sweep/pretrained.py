"""Plans and loads pretrained models, so that they are measured like models that posbench trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from posbench.config.data import DataSettings
from posbench.config.schema import (
    LMSettings,
    ModelSettings,
    RuntimeSettings,
    SchemeSettings,
    SizeSettings,
    TrainSettings,
)
from posbench.data import hugging_face
from posbench.data.corpus import Corpus, fingerprint, with_model_tokenizer
from posbench.errors import DataError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.hf_config import PretrainedInfo, inspect_pretrained, load_hf_model
from posbench.lm.hf_weights import from_hf_state_dict
from posbench.lm.hugging_face import HFLM
from posbench.runtime.device import autocast_context, pick_device
from posbench.sweep.cell import Cell, ModelPlan
from posbench.sweep.evaluator import EvaluatedModel
from posbench.sweep.plan import build_untrained_scheme
from posbench.tasks.task import Task


def plan_pretrained(lm: LMSettings, data: DataSettings) -> ModelPlan:
    """Plans a pretrained model, on data that is encoded by its own tokenizer.

    Raises:
        DataError: if the model cannot be found, or the tokenizer has more ids than the model embeds.
    """
    pretrained = inspect_pretrained(lm)
    data = with_model_tokenizer(data, lm.name)
    size = hugging_face.load(data.tokenizer.name).vocab_size
    if size > pretrained.vocab_size:
        raise DataError(
            f"tokenizer {data.tokenizer.name!r} has {size} ids and {pretrained.label} embeds {pretrained.vocab_size}: "
            "give the model's own by data.tokenizer.name"
        )
    dims = pretrained.model_dims
    settings = ModelSettings(
        SchemeSettings(pretrained.label, pretrained.scheme),
        SizeSettings(
            pretrained.label,
            dims["n_layers"],
            dims["d_model"],
            dims["n_heads"],
            round(dims["intermediate_size"] / dims["d_model"]),
            dims["head_dim"],
        ),
        data,
        TrainSettings(seq_len=pretrained.train_len),
    )
    version = build_untrained_scheme(settings).version
    return ModelPlan(settings, fingerprint(data), version, pretrained=pretrained)


class PretrainedModel(EvaluatedModel):
    """A pretrained model: converted to GPT, or a black box that runs transformers' implementation."""

    def __init__(
        self, plan: ModelPlan, pretrained: PretrainedInfo, corpus: Corpus, runtime: RuntimeSettings
    ) -> None:
        self.plan, self.corpus, self.runtime = plan, corpus, runtime
        self.max_tokens_per_batch = runtime.max_tokens_per_batch
        self.device, self.dtype = pick_device(runtime.device), pretrained.settings.dtype
        hf_model = load_hf_model(pretrained)
        count = sum(parameter.numel() for parameter in hf_model.parameters())
        self.metadata = {"status": "ok", "n_params": count, "train_tokens": 0}
        if pretrained.architecture is None:
            self.black_box: torch.nn.Module | None = hf_model.to(self.device)
            return
        self.black_box, weights = None, hf_model.state_dict()
        del hf_model
        self.model = from_hf_state_dict(
            weights, pretrained.architecture, build_untrained_scheme(plan.settings), pretrained.label
        )
        self.model.to(self.device)

    def lm(self, cell: Cell, kernel: KernelDispatcher) -> Any:
        if self.black_box is None:
            return super().lm(cell, kernel)
        kernel.note("transformers")
        return HFLM(
            self.black_box,
            self.plan.settings.train.seq_len,
            autocast_context(self.device, cell.dtype),
            self.max_tokens_per_batch,
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
