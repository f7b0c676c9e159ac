"""Models that were trained elsewhere: planned like those trained here, and opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from posbench.config.data import DataConfig
from posbench.config.schema import (
    ModelSettings,
    RuntimeSettings,
    SchemeSettings,
    SizeSettings,
    SubjectSettings,
    TrainSettings,
)
from posbench.data import hugging_face
from posbench.data.corpus import Corpus, fingerprint, read_by
from posbench.errors import DataError
from posbench.kernels.dispatcher import Recording
from posbench.lm.hf_weights import convert
from posbench.lm.hugging_face import HuggingFaceSubject
from posbench.lm.pretrained import Pretrained, load, open_pretrained
from posbench.runtime.device import pick_device, precision
from posbench.sweep.evaluator import Trained
from posbench.sweep.plan import Cell, ModelPlan, scheme_of
from posbench.tasks.task import Task


def plan_pretrained(subject: SubjectSettings, data: DataConfig) -> ModelPlan:
    """The plan of a pretrained model, on data that its own tokenizer reads.

    Raises:
        DataError: if there is no such model within reach, or its tokenizer is not its own.
    """
    found = open_pretrained(subject)
    data = read_by(data, subject.name)
    size = hugging_face.load(data.tokenizer.name).size
    if size > found.vocabulary:
        raise DataError(
            f"tokenizer {data.tokenizer.name!r} has {size} ids and {found.label} embeds {found.vocabulary}: give its "
            "own by data.tokenizer.name"
        )
    counts = found.counts
    settings = ModelSettings(
        SchemeSettings(found.label, found.scheme),
        SizeSettings(
            found.label,
            counts["layers"],
            counts["width"],
            counts["heads"],
            round(counts["mlp_width"] / counts["width"]),
            counts["head_dim"],
        ),
        data,
        TrainSettings(length=found.train_len),
    )
    return ModelPlan(settings, fingerprint(data), scheme_of(settings).version, pretrained=found)


class FromElsewhere(Trained):
    """A pretrained model: converted, or as it is."""

    def __init__(
        self, plan: ModelPlan, pretrained: Pretrained, corpus: Corpus, runtime: RuntimeSettings
    ) -> None:
        self.plan, self.corpus, self.runtime = plan, corpus, runtime
        self.tokens_per_pass = runtime.tokens_per_pass
        self.device, self.dtype = pick_device(runtime.device), pretrained.settings.dtype
        theirs = load(pretrained)
        count = sum(parameter.numel() for parameter in theirs.parameters())
        self.facts = {"status": "ok", "n_params": count, "train_tokens": 0}
        if pretrained.architecture is None:
            self.black_box: torch.nn.Module | None = theirs.to(self.device)
            return
        self.black_box, weights = None, theirs.state_dict()
        del theirs
        self.model = convert(weights, pretrained.architecture, scheme_of(plan.settings), pretrained.label)
        self.model.to(self.device)

    def subject(self, cell: Cell, kernel: Recording) -> Any:
        if self.black_box is None:
            return super().subject(cell, kernel)
        kernel.note("transformers")
        return HuggingFaceSubject(
            self.black_box,
            self.plan.settings.train.length,
            precision(self.device, cell.dtype),
            self.tokens_per_pass,
        )

    def columns(self, cell: Cell, task: Task) -> dict[str, Any]:
        """Weights in bfloat16 are computed with in bfloat16."""
        columns = super().columns(cell, task)
        return columns | ({"dtype": self.dtype} if self.dtype != "float32" else {})


def opened(plan: ModelPlan, folder: Path, corpus: Corpus, runtime: RuntimeSettings) -> Trained:
    """The model of a plan, read from where it is: `folder`, if it was trained here."""
    if plan.pretrained:
        return FromElsewhere(plan, plan.pretrained, corpus, runtime)
    return Trained(plan, folder, corpus, runtime)
