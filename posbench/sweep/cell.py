"""Models and cells of a sweep, and their identities.

A cell is one task on one model at one length. Its id is a hash of everything that its rows depend on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from posbench.config.schema import ExtensionSettings, ModelSettings, TaskSettings, TrainSettings
from posbench.identity import hashed_fields, identity
from posbench.instantiate import by_name
from posbench.lm.hf_config import PretrainedInfo


@dataclass(frozen=True, eq=False)
class FineTuning:
    """How a model was made from its parent: trained on with an extension in place."""

    base_model: ModelPlan
    extension: ExtensionSettings
    extension_version: int
    train: TrainSettings


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """One model to train; `corpus` is the fingerprint of its data, `version` its scheme's.

    A pretrained one is not trained here: its settings describe it, a training length of its own among them.
    A fine-tuned model has the settings of its parent: the scheme knows the length that it was pretrained with.
    """

    settings: ModelSettings
    corpus: str
    version: int
    fine_tuning: FineTuning | None = None
    pretrained: PretrainedInfo | None = None

    @property
    def train(self) -> TrainSettings:
        """Of its own training, which for a fine-tuned model is the last one."""
        return self.fine_tuning.train if self.fine_tuning else self.settings.train

    @cached_property
    def id(self) -> str:
        """A function of all that its weights depend on; names are labels and not among it."""
        one, symbols = self.settings, [self.settings.data.num_keys, self.settings.data.num_values]
        if self.pretrained:
            return identity(
                ["pretrained", self.pretrained.id, by_name(one.scheme.build), self.version, *symbols]
            )
        if self.fine_tuning:
            extension = [by_name(self.fine_tuning.extension.build), self.fine_tuning.extension_version]
            return identity(
                ["finetuned", self.fine_tuning.base_model.id, extension, hashed_fields(self.train)]
            )
        size = {key: value for key, value in hashed_fields(self.settings.size).items() if key != "name"}
        data = [self.corpus, *symbols]
        return identity(
            ["model", by_name(one.scheme.build), self.version, size, data, hashed_fields(one.train)]
        )

    @property
    def label(self) -> str:
        """For people: scheme, size, training length and seed, and what it was trained on with."""
        one = self.settings
        if self.pretrained:
            return f"{self.pretrained.description}, length {one.train.seq_len}"
        plain = f"{one.scheme.name}, {one.size.name}, length {one.train.seq_len}, seed {one.train.seed}"
        if self.fine_tuning is None:
            return plain
        return f"{plain} + {self.fine_tuning.extension.name} ({self.train.steps} steps at length {self.train.seq_len})"


@dataclass(frozen=True, eq=False)
class Cell:
    """One task on one model, extended or not, at one length in tokens."""

    model: ModelPlan
    extension: ExtensionSettings
    extension_version: int
    task: TaskSettings
    task_version: int
    length: int
    seed: int
    dtype: str

    @cached_property
    def id(self) -> str:
        """A function of all that its rows depend on."""
        extension = [by_name(self.extension.ensemble or self.extension.build), self.extension_version]
        task = [by_name(self.task.build), self.task_version]
        where = [self.model.corpus, self.length, self.seed, self.dtype]
        return identity(["cell", self.model.id, extension, task, *where])


@dataclass(frozen=True, eq=False)
class Plan:
    """Models, their cells, and a line for each combination that cannot be."""

    models: list[ModelPlan]
    cells: list[Cell]
    skipped: list[str]

    @cached_property
    def all_models(self) -> list[ModelPlan]:
        """Those that were asked for and those that are fine-tuned from them, parents first."""
        return list({one.id: one for one in [*self.models, *(cell.model for cell in self.cells)]}.values())
