"""A pretrained model by name or folder: inspects its configuration, then loads its weights.

A model of a supported family is converted, so that every extension applies to it; any other stays a black box with
its own positions. Code from a model's repository is never executed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from posbench.config.schema import ExtensionSettings, LMSettings
from posbench.data.network import need_hub
from posbench.errors import ConfigError, DataError, IncompatibleError, unknown
from posbench.identity import identity
from posbench.lm import hf_positions, hf_weights
from posbench.lm.hugging_face import OpaquePositions
from posbench.model.architecture import Architecture

REMEDY = "give a folder with config.json and weights, or a causal language model's name on the hub"
WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True, eq=False)
class PretrainedInfo:
    """Properties of a pretrained model that are known before its weights are loaded.

    Attributes:
        settings: name, revision, dtype and other settings with which it is loaded.
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
                f"choose extension=none, a model of {', '.join(hf_weights.SUPPORTED_MODEL_TYPES)}, or transformers' own scaling by "
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
    train_len = hf_positions.pretraining_len(config)
    if not train_len:
        raise IncompatibleError(
            f"{settings.name}: its config.json has no max_position_embeddings, from which lengths follow; choose "
            "another model"
        )
    rope_type = hf_positions.rope_type(config)
    scaling_name, reason = "none" if rope_type == "default" else f"own_{rope_type}", ""
    architecture, build = None, None
    try:
        if settings.black_box:
            raise IncompatibleError("as set by lm.black_box")
        architecture = hf_weights.architecture_from_hf_config(config)
        scheme, build = hf_positions.scheme_settings(config), hf_positions.scaling_settings(config)
    except IncompatibleError as error:
        architecture, reason, scheme = None, str(error), opaque_scheme_settings(config, settings.name)
    return PretrainedInfo(
        settings,
        Path(settings.name).resolve().name if Path(settings.name).exists() else settings.name.split("/")[-1],
        identity(
            [source_id(settings, config), settings.dtype, settings.rope_scaling, architecture is not None]
        ),
        architecture,
        scheme,
        ExtensionSettings(scaling_name, build),
        model_dims(config),
        train_len,
        int(config.vocab_size),
        reason,
    )


def load_config(settings: LMSettings) -> Any:
    """Loads the transformers configuration, with `rope_scaling` of the settings in place of its own scaling."""
    from transformers import AutoConfig

    name = settings.name
    if not name:
        raise ConfigError(f"lm=hugging_face needs lm.name: {REMEDY}")
    if settings.dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"lm.dtype {settings.dtype!r}: give float32 or bfloat16")
    path = Path(name)
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise DataError(f"lm.name {name!r}: there is no such folder; {REMEDY}")
    config = from_pretrained(AutoConfig, settings)
    if not hasattr(config, "vocab_size"):
        raise DataError(f"model {name!r} cannot be loaded (it is not a text-only model): {REMEDY}")
    if settings.rope_scaling:
        override_rope_scaling(config, settings)
    return config


def from_pretrained(auto_class: Any, settings: LMSettings, **kwargs: Any) -> Any:
    """Calls `auto_class.from_pretrained`, first with local files only and then on the hub.

    Raises:
        DataError: if the model cannot be loaded; the message is one line.
    """
    kwargs |= {"revision": settings.revision or "main", "trust_remote_code": False}
    name = settings.name
    with one_line_errors(name):
        try:
            return auto_class.from_pretrained(name, local_files_only=True, **kwargs)
        except OSError:
            if Path(name).exists():
                raise
            need_hub(f"model {name!r}", "a folder that holds a model")
            return auto_class.from_pretrained(name, **kwargs)


def override_rope_scaling(config: Any, settings: LMSettings) -> None:
    """Replaces the RoPE scaling of the configuration by that of the settings; rope_theta stays."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    own, requested = hf_positions.rope_parameters(config), dict(settings.rope_scaling)
    rope_types = ("default", *ROPE_INIT_FUNCTIONS)
    if not own:
        raise IncompatibleError(
            f"lm.rope_scaling on {settings.name}: its configuration has no rotation that could be scaled; remove "
            "lm.rope_scaling"
        )
    if requested.get("rope_type") not in rope_types:
        raise unknown("lm.rope_scaling.rope_type", str(requested.get("rope_type")), rope_types)
    kept = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    config.rope_parameters = {key: own[key] for key in kept if key in own} | requested
    try:
        config.standardize_rope_params()
        config.validate_rope()
        hf_positions.scaling_settings(config)
    except IncompatibleError:
        pass  # becomes a black box, which transformers scales
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"lm.rope_scaling {requested}: {first_line(error)}; give what transformers' rope type "
            f"{requested['rope_type']!r} needs"
        ) from None


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
    limit = getattr(config, "max_position_embeddings", None) or 0
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


def source_id(settings: LMSettings, config: Any) -> str:
    """Returns what identifies the weights: the commit on the hub, or a hash of the files in a folder."""
    folder = Path(settings.name)
    if not folder.exists():
        commit = getattr(config, "_commit_hash", None) or settings.revision
        return f"{settings.name}@{commit}"
    files = next((some for some in (sorted(folder.glob(pattern)) for pattern in WEIGHTS) if some), [])
    if not files:
        raise DataError(f"model {settings.name!r} cannot be loaded (it has no weights): {REMEDY}")
    digests = []
    for path in [folder / "config.json", *files]:
        with path.open("rb") as file:
            digests.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return identity(digests)


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


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextlib.contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Turns errors that transformers raises for a model into a DataError of one line."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        reason = first_line(error)
        if "gated" in reason or "401" in reason or "403" in reason:
            raise DataError(
                f"model {name!r} is gated or private: accept its licence on the hub, log in with `hf auth login`, "
                "and try again"
            ) from None
        if "trust_remote_code" in str(error):
            reason = "it needs its repository's own code, which is not executed"
        if "for this kind of AutoModel" in reason:
            reason = "it is not a causal language model"
        raise DataError(f"model {name!r} cannot be loaded ({reason}): {REMEDY}") from None
