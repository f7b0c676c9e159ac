"""The model to export: one that posbench has trained, or a pretrained one that it converts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posbench.config.data import DataSettings, TokenizerSettings
from posbench.config.schema import (
    ExtensionSettings,
    LMSettings,
    ModelSettings,
    SchemeSettings,
    SizeSettings,
    TrainSettings,
)
from posbench.errors import ConfigError, DataError, IncompatibleError
from posbench.instantiate import instantiate
from posbench.lm.hf_config import PretrainedInfo, inspect_pretrained, load_hf_model
from posbench.lm.hf_weights import from_hf_state_dict
from posbench.model.gpt import GPT
from posbench.plan.finetune import extension_length
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme
from posbench.training import checkpoints
from posbench.training.trainer import build_model


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A model with its weights.

    Attributes:
        id: of a trained model, by which its rows are found; empty for a pretrained one.
        label: its name for people.
        model: the GPT under its own scheme.
        scheme: settings of the scheme.
        extension: settings of the extension around it; `build` None for none.
        length: declared length in tokens, for which the extension is built; None for any.
        train_len: training length in tokens.
        seed: with which the scheme was built.
        settings: of the training; None for a pretrained model.
        pretrained: of a pretrained model, else None.
        metadata: of the training.
        generation: settings of transformers' generate() of a pretrained model, else None.
    """

    id: str
    label: str
    model: GPT
    scheme: dict[str, Any]
    extension: ExtensionSettings
    length: int | None
    train_len: int
    seed: int = 0
    settings: ModelSettings | None = None
    pretrained: PretrainedInfo | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    generation: Any = None

    @property
    def finetune(self) -> dict[str, Any]:
        """The settings of its fine-tuning; empty without one."""
        return self.metadata.get("settings", {}).get("finetune", {})

    def extended(self) -> GPT:
        """Returns a view of the model under its extension.

        Raises:
            IncompatibleError: if the scheme does not support the extension.
            LengthError, UndefinedError: if the model is not defined at the declared length.
        """
        scheme = self.model.scheme
        if self.extension.build is not None:
            context = ExtensionContext(
                self.model.architecture.shape(self.train_len), self.length or self.train_len
            )
            scheme = instantiate(self.extension.build, Extension, scheme, context)
        scheme.check(self.length or self.train_len)
        return self.model.with_scheme(scheme)


def load_trained(folder: Path, extension: ExtensionSettings, length: int | None) -> SourceModel:
    """Loads a model of posbench train from its folder in a results folder.

    Raises:
        ConfigError: if the training is not finished, or diverged.
        DataError: if the folder is damaged or of another version.
    """
    if not (folder / "final").is_dir():
        raise ConfigError(
            f"{folder} has no finished model: run posbench train with the same settings, which continues from its last "
            "checkpoint"
        )
    metadata, weights = checkpoints.read(folder / "final", "model")
    if metadata is None or weights is None:
        raise DataError(f"{folder / 'final'} is damaged: train the model again with the same settings")
    if metadata["status"] != "ok":
        raise ConfigError(
            f"{folder} has status {metadata['status']}: its weights are no numbers, so there is nothing to export"
        )
    settings = settings_of(metadata, folder)
    if metadata["settings"].get("finetune"):
        if extension.build is None:
            if "extension" not in metadata:  # written before fine-tuned models kept it
                raise ConfigError(
                    f"{folder} was fine-tuned, and does not say with which extension: name it by --extension, with its "
                    "settings by --set"
                )
            extension = saved_extension(metadata, folder)
        tuned = metadata["settings"]["finetune"]
        length = extension_length(length or tuned["seq_len"], tuned)
    model = build_model(settings, len(weights["embedding.weight"]))
    model.load_state_dict(weights)
    label = f"{settings.scheme.name}-{settings.size.name}-{settings.train.seq_len}"
    return SourceModel(
        folder.name,
        label,
        model.eval(),
        settings.scheme.build,
        extension,
        declared(extension, length),
        settings.train.seq_len,
        settings.train.seed,
        settings,
        metadata=metadata,
    )


def saved_extension(metadata: dict[str, Any], folder: Path) -> ExtensionSettings:
    """Returns the extension of a fine-tuned model from its metadata."""
    try:
        return ExtensionSettings(**metadata["extension"])
    except TypeError as error:
        raise other_version(folder, error) from None


def settings_of(metadata: dict[str, Any], folder: Path) -> ModelSettings:
    """Returns the settings of a training from the metadata of its model."""
    given = {**metadata["settings"]}
    try:
        data = {**given["data"]}
        data["tokenizer"] = TokenizerSettings(**data["tokenizer"])
        return ModelSettings(
            SchemeSettings(**given["scheme"]),
            SizeSettings(**given["size"]),
            DataSettings(**data),
            TrainSettings(**given["train"]),
        )
    except (KeyError, TypeError) as error:
        raise other_version(folder, error) from None


def other_version(folder: Path, error: Exception) -> DataError:
    """Returns the error for settings that this version does not have."""
    return DataError(f"{folder} has settings of another version of posbench ({error}): train the model again")


def load_pretrained(lm: LMSettings, extension: ExtensionSettings, length: int | None) -> SourceModel:
    """Loads and converts a pretrained model of a supported family.

    Raises:
        IncompatibleError: if the family is not converted.
    """
    info = inspect_pretrained(lm)
    if info.architecture is None:
        raise IncompatibleError(
            f"{info.label} is run by transformers as it is ({info.black_box_reason}): there is nothing to export"
        )
    extension = info.resolve_extension(extension)
    scheme = instantiate(info.scheme, PositionScheme, info.architecture.shape(info.train_len))
    loaded: Any = load_hf_model(info)
    model = from_hf_state_dict(loaded.state_dict(), info.architecture, scheme, info.label, info.family)
    return SourceModel(
        "",
        info.label,
        model,
        info.scheme,
        extension,
        length if extension is info.scaling else declared(extension, length),
        info.train_len,
        pretrained=info,
        generation=loaded.generation_config,
    )


def declared(extension: ExtensionSettings, length: int | None) -> int | None:
    """Returns the declared length of an exported model; an extension is built for one.

    Raises:
        ConfigError: if an ensemble is given, or an extension without a length.
        IncompatibleError: for an ensemble, which is no model.
    """
    if extension.ensemble is not None:
        raise IncompatibleError(
            f"{extension.name} is an ensemble, which combines several passes over parts of the context, and no model: "
            "export the model without it"
        )
    if extension.build is not None and length is None:
        raise ConfigError(f"extension {extension.name} is built for one length: give --length in tokens")
    return length
