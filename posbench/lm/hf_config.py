"""A pretrained model by name or folder: inspects its configuration, then loads its weights.

A model of a supported family is converted, so that every extension applies to it; any other stays a black box with
its own positions. Code from a model's repository is never executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from posbench.config.schema import ExtensionSettings, LMSettings
from posbench.errors import ConfigError, DataError, IncompatibleError
from posbench.identity import identity
from posbench.instantiate import whole_as_int
from posbench.lm import hf_families, hf_positions, hf_rope_scaling
from posbench.lm.hf_loading import (
    from_pretrained,
    hub_commit,
    load_config,
    load_generation_config,
    one_line_errors,
    source_id,
)
from posbench.lm.hugging_face import OpaquePositions
from posbench.model.architecture import Architecture

VERSION = 2  # incremented when the numbers of pretrained models change


@dataclass(frozen=True, eq=False)
class PretrainedInfo:
    """Properties of a pretrained model that are known before its weights are loaded.

    Attributes:
        settings: name, revision (on the hub, the commit), dtype and other settings with which it is loaded.
        label: short name for tables and messages.
        id: hash of its weights and of the settings that change its numbers.
        architecture: of the converted model; None for a black box.
        scheme: settings that build its position scheme, without RoPE scaling.
        scaling: its RoPE scaling as an extension, used unless another extension is requested; a black box applies it
            internally, and its `build` is None.
        model_dims: n_layers, d_model, n_heads, head_dim and intermediate_size; 1 where the configuration has no such
            value.
        train_len: training length in tokens, from the configuration.
        vocab_size: number of ids.
        family: model type in transformers.
        black_box_reason: why it is not converted; empty for a converted model.
    """

    settings: LMSettings
    label: str
    id: str
    architecture: Architecture | None
    scheme: dict[str, Any]
    scaling: ExtensionSettings
    model_dims: dict[str, int]
    train_len: int
    vocab_size: int
    family: str
    black_box_reason: str = field(default="")

    @property
    def description(self) -> str:
        """Label, and whether the model is converted."""
        return f"{self.label} ({'converted' if self.architecture else 'black box'})"

    def resolve_extension(self, extension: ExtensionSettings) -> ExtensionSettings:
        """Returns the extension to apply: `extension`, or the model's own scaling if that is none.

        Raises:
            IncompatibleError: if the extension needs fine-tuning, or the model is a black box.
        """
        if extension.finetune:
            raise IncompatibleError(
                f"extension {extension.name} needs fine-tuning, and {self.label} is only evaluated: remove finetune"
            )
        if extension.ensemble is not None:
            return replace(extension, build=self.scaling.build)
        if extension.build is None:
            return self.scaling
        if self.architecture is None:
            raise IncompatibleError(
                f"extension {extension.name} on {self.label}: a black box ({self.black_box_reason}) takes no extension; "
                f"choose extension=none, a model of {', '.join(hf_families.SUPPORTED_MODEL_TYPES)}, or transformers' own scaling by "
                "lm.rope_scaling"
            )
        return extension


def inspect_pretrained(settings: LMSettings) -> PretrainedInfo:
    """Reads the configuration of a pretrained model and decides whether it is converted.

    Raises:
        ConfigError: if the settings name no model, or a dtype or scaling that does not exist.
        DataError: if the model is not found or cannot be loaded.
        IncompatibleError: if its training length is unknown, or its rotation cannot be scaled as requested.
    """
    config = load_config(settings)
    if settings.train_len < 0:
        raise ConfigError(
            f"lm.train_len {settings.train_len}: give tokens, or 0 for the length in config.json"
        )
    train_len = settings.train_len or hf_positions.pretraining_len(config)
    if not train_len:
        raise IncompatibleError(
            f"{settings.name}: its config.json does not state the training length, from which lengths follow; give it "
            "in tokens by lm.train_len"
        )
    scaling_name, reason = (
        "_".join(["own", *kinds]) if (kinds := hf_positions.rope_types(config)) else "none",
        "",
    )
    architecture, build = None, None
    try:
        if settings.black_box:
            raise IncompatibleError("as set by lm.black_box")
        architecture = hf_families.architecture_from_hf_config(config)
        scheme, build = (
            hf_positions.scheme_settings(config, train_len),
            hf_rope_scaling.scaling_settings(config),
        )
        build = hf_rope_scaling.at_own_length(config, build, train_len)
        if scheme["_target_"] == hf_positions.LEARNED and train_len != hf_positions.stated_len(config):
            raise IncompatibleError(
                f"its table has {hf_positions.stated_len(config)} positions, not the {train_len} of lm.train_len"
            )
    except IncompatibleError as error:
        architecture, reason, scheme = None, str(error), opaque_scheme_settings(config, settings.name)
    # One commit for the weights and the tokenizer, also if the branch moves before they are read.
    revision = settings.revision if Path(settings.name).exists() else hub_commit(settings)
    return PretrainedInfo(
        replace(settings, revision=revision),
        Path(settings.name).resolve().name if Path(settings.name).exists() else settings.name.split("/")[-1],
        identity(
            [
                source_id(settings),
                settings.dtype,
                whole_as_int(dict(settings.rope_scaling)),
                architecture is not None,
                VERSION,
                train_len,
            ]
        ),
        architecture,
        scheme,
        ExtensionSettings(scaling_name, build),
        model_dims(config),
        train_len,
        int(config.vocab_size),
        config.model_type,
        reason,
    )


def eos_ids(settings: LMSettings, tokenizer: Any) -> tuple[int, ...]:
    """Returns the ids that end an answer: those of the configuration, the generation settings and the tokenizer.

    Args:
        tokenizer: a tokenizer of transformers.
    """
    sources = [load_config(settings), load_generation_config(settings), tokenizer]
    found: set[int] = set()
    for source in sources:
        given = getattr(source, "eos_token_id", None)
        found |= set(given if isinstance(given, list | tuple) else [] if given is None else [given])
    return tuple(sorted(found))


def opaque_scheme_settings(config: Any, name: str) -> dict[str, Any]:
    """Returns the settings of the placeholder scheme of a black box, with its maximum length."""
    from transformers import AutoModelForCausalLM

    with one_line_errors(name), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return {
        "_target_": f"{OpaquePositions.__module__}.{OpaquePositions.__name__}",
        "max_position_embeddings": position_table_size(model, config),
    }


def position_table_size(model: torch.nn.Module, config: Any) -> int:
    """Returns the size of a model's table of positions in tokens; 0 if it has no such table."""
    limit = hf_positions.stated_len(config)
    token_embedding = model.get_input_embeddings()  # type: ignore[operator]
    tables = [
        one.weight
        for one in model.modules()
        if isinstance(one, torch.nn.Embedding) and one is not token_embedding
    ]
    tables += [buffer for buffer in model.buffers() if buffer.dim() > 1]
    # Some tables have a few more rows, for padding.
    has_table = any(limit <= size <= limit + 8 for table in tables for size in table.shape)
    return limit if limit and has_table else 0


def load_hf_model(pretrained: PretrainedInfo) -> torch.nn.Module:
    """Loads the transformers model on the CPU, in evaluation mode.

    Raises:
        DataError: if weights are missing or have another shape.
    """
    from transformers import AutoModelForCausalLM

    settings, name = pretrained.settings, pretrained.settings.name
    model, report = from_pretrained(
        AutoModelForCausalLM,
        settings,
        config=load_config(settings),
        dtype=getattr(torch, settings.dtype),
        output_loading_info=True,
    )
    # transformers initializes missing weights at random, with no more than a warning.
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise DataError(
            f"{name} has no weights {missing[0]} of the shape in its config.json; check that it is complete"
        )
    return model.eval()


def model_dims(config: Any) -> dict[str, int]:
    """Returns the dimensions of a model, for tables and for planning; see `PretrainedInfo`."""

    def value(name: str, default: int = 1) -> int:
        return int(getattr(config, name, None) or default)

    d_model, n_heads = value("hidden_size"), value("num_attention_heads")
    return {
        "n_layers": value("num_hidden_layers"),
        "d_model": d_model,
        "n_heads": n_heads,
        "head_dim": value("head_dim", max(1, d_model // n_heads)),
        "intermediate_size": value("intermediate_size", 4 * d_model),
    }
