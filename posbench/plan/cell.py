"""Models and cells of a sweep, and their identities.

A cell is one task on one model at one length. Its identity is a hash of everything that its rows depend on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from posbench.config.schema import ExtensionSettings, ModelSettings, TaskSettings, TrainSettings
from posbench.identity import hashed_fields, identity
from posbench.instantiate import by_name

if TYPE_CHECKING:
    from posbench.lm.hf_config import PretrainedInfo

# Raised when the numbers of a training change. Version 1 decayed weights by their number of dimensions, and no matrices of
# Muon; its norms, rotations and losses differ from those of version 2 in the last bits.
ARITHMETIC_VERSION = 2


@dataclass(frozen=True, eq=False)
class FineTuning:
    """Fine-tuning of a base model with an extension in place; `train` has the settings of that training."""

    base_model: ModelPlan
    extension: ExtensionSettings
    extension_version: int
    train: TrainSettings


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """One model of a sweep: to train, to fine-tune, or pretrained.

    Attributes:
        settings: of the pretraining, also for a fine-tuned model, whose scheme keeps the pretrained length. For a
            pretrained model they describe it.
        corpus: the fingerprint of its data.
        version: of its scheme.
        eos_ids: ids with which a pretrained model ends an answer.
    """

    settings: ModelSettings
    corpus: str
    version: int
    fine_tuning: FineTuning | None = None
    pretrained: PretrainedInfo | None = None
    eos_ids: tuple[int, ...] = ()

    @property
    def train(self) -> TrainSettings:
        """The settings of its last training: of the fine-tuning, if there is one."""
        return self.fine_tuning.train if self.fine_tuning else self.settings.train

    @cached_property
    def id(self) -> str:
        """A hash of everything that its weights and answers depend on; labels are left out."""
        settings, symbols = self.settings, [self.settings.data.num_keys, self.settings.data.num_values]
        scheme = [by_name(settings.scheme.build), self.version]
        if self.pretrained:
            return identity(["pretrained", self.pretrained.id, *scheme, *symbols, list(self.eos_ids)])
        if self.fine_tuning:
            extension = [by_name(self.fine_tuning.extension.build), self.fine_tuning.extension_version]
            return identity(
                ["finetuned", self.fine_tuning.base_model.id, extension, _hashed_training(self.train)]
            )
        size = {key: value for key, value in hashed_fields(settings.size).items() if key != "name"}
        return identity(["model", *scheme, size, [self.corpus, *symbols], _hashed_training(settings.train)])

    @property
    def label(self) -> str:
        """A description for messages: scheme, size, training length, seed and fine-tuning."""
        scheme, size, train = self.settings.scheme, self.settings.size, self.settings.train
        if self.pretrained:
            return f"{self.pretrained.description}, length {train.seq_len}"
        base = f"{scheme.name}, {size.name}, length {train.seq_len}, seed {train.seed}"
        if self.fine_tuning is None:
            return base
        return f"{base} + {self.fine_tuning.extension.name} ({self.train.steps} steps at length {self.train.seq_len})"


@dataclass(frozen=True, eq=False)
class Cell:
    """One task on one model, with an extension or without, at one length in tokens."""

    model: ModelPlan
    extension: ExtensionSettings
    extension_version: int
    task: TaskSettings
    task_version: int
    length: int
    seed: int
    dtype: str

    @cached_property
    def builds(self) -> dict[str, Any]:
        """The settings of its extension or ensemble and of its task, classes by their registered names."""
        extension = self.extension.ensemble or self.extension.build
        return {"extension": by_name(extension), "task": by_name(self.task.build)}

    @cached_property
    def id(self) -> str:
        """A hash of everything that its rows depend on."""
        extension = [self.builds["extension"], self.extension_version]
        task = [self.builds["task"], self.task_version]
        return identity(
            ["cell", self.model.id, extension, task, self.model.corpus, self.length, self.seed, self.dtype]
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """Models, their cells, and a line for each combination that is not possible."""

    models: list[ModelPlan]
    cells: list[Cell]
    skipped: list[str]

    @cached_property
    def all_models(self) -> list[ModelPlan]:
        """The models of the plan and those that are fine-tuned from them, base models first."""
        models = [*self.models, *(cell.model for cell in self.cells)]
        return list({model.id: model for model in models}.values())


def _hashed_training(train: TrainSettings) -> dict[str, Any]:
    """Returns the settings of a training that enter an id, and the version of its arithmetic."""
    return hashed_fields(train) | {"arithmetic_version": ARITHMETIC_VERSION}
