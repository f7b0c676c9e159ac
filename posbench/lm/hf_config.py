"""A pretrained model by name or folder: what its configuration tells, and its weights.

One that our model is made for is converted, so that every extension applies to it; any other is a black box with
positions of its own. Nothing of a repository's own code is run.
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
    """What is known of a model before its weights are read.

    Attributes:
        settings: where it is and how it is read.
        label: for people.
        id: a function of its weights and of how they are read.
        architecture: of the converted model; None for a black box.
        scheme: settings that build its scheme, without its own scaling.
        scaling: its own scaling as an extension, in place while no other is asked for; a black box applies it
            by itself and builds nothing.
        model_dims: n_layers, d_model, n_heads, head_dim and intermediate_size, 1 where its configuration has no such name.
        train_len: tokens, from its configuration.
        black_box_reason: why it is no converted model.
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
        """Its label and how it is read."""
        return f"{self.label} ({'converted' if self.architecture else 'black box'})"

    def resolve_extension(self, extension: ExtensionSettings) -> ExtensionSettings:
        """What stands around its scheme if `extension` is asked for: that in place of its own scaling.

        Raises:
            IncompatibleError: if it is a black box, or was to be trained on.
        """
        if extension.finetune:
            raise IncompatibleError(
                f"extension {extension.name} has a fine-tuning and {self.label} is only evaluated: leave finetune out"
            )
        if extension.ensemble is not None:
            return replace(extension, build=self.scaling.build)
        if extension.build is None:
            return self.scaling
        if self.architecture is None:
            raise IncompatibleError(
                f"extension {extension.name} on {self.label}: a black box ({self.black_box_reason}) has positions of its own; "
                f"choose extension=none, a model of {', '.join(hf_weights.SUPPORTED_MODEL_TYPES)}, or transformers' own scaling by "
                "lm.rope_scaling"
            )
        return extension


def inspect_pretrained(settings: LMSettings) -> PretrainedInfo:
    """What the configuration of a model tells.

    Raises:
        DataError: if there is no such model within reach.
        IncompatibleError: if it is no causal language model, or its rotation cannot be scaled as asked.
    """
    config = configuration(settings)
    train_len = hf_positions.pretraining_len(config)
    if not train_len:
        raise IncompatibleError(
            f"{settings.name}: its config.json has no max_position_embeddings, from which lengths follow; choose "
            "another model"
        )
    kind = hf_positions.rope_type(config)
    name, reason = "none" if kind == "default" else f"own_{kind}", ""
    own, build = None, None
    try:
        if settings.black_box:
            raise IncompatibleError("as asked by lm.black_box")
        own = hf_weights.architecture_from_hf_config(config)
        scheme, build = hf_positions.scheme_settings(config), hf_positions.scaling_settings(config)
    except IncompatibleError as error:
        own, reason, scheme = None, str(error), black_box(config, settings.name)
    return PretrainedInfo(
        settings,
        Path(settings.name).resolve().name if Path(settings.name).exists() else settings.name.split("/")[-1],
        identity([where(settings, config), settings.dtype, settings.rope_scaling, own is not None]),
        own,
        scheme,
        ExtensionSettings(name, build),
        model_dims(config),
        train_len,
        int(config.vocab_size),
        reason,
    )


def configuration(settings: LMSettings) -> Any:
    """The transformers configuration, with the scaling that was asked for in place of its own."""
    from transformers import AutoConfig

    name = settings.name
    if not name:
        raise ConfigError(f"lm=hugging_face needs lm.name: {REMEDY}")
    if settings.dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"lm.dtype {settings.dtype!r}: give float32 or bfloat16")
    path = Path(name)
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise DataError(f"lm.name {name!r}: there is no such folder; {REMEDY}")
    config = found(AutoConfig, settings)
    if not hasattr(config, "vocab_size"):
        raise DataError(f"{name} is no model that can be loaded (it is not one of text alone): {REMEDY}")
    if settings.rope_scaling:
        rescale(config, settings)
    return config


def found(kind: Any, settings: LMSettings, **given: Any) -> Any:
    """What `kind` of transformers loads; this machine is looked at first."""
    where = {"revision": settings.revision or "main", "trust_remote_code": False}
    name = settings.name
    with explained(name):
        try:
            return kind.from_pretrained(name, local_files_only=True, **where, **given)
        except OSError:
            if Path(name).exists():
                raise
            need_hub(f"model {name!r}", "a folder that holds a model")
            return kind.from_pretrained(name, **where, **given)


def rescale(config: Any, settings: LMSettings) -> None:
    """Put the scaling that was asked for in place of the configuration's own; its base stays."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    own, given = hf_positions.rope_parameters(config), dict(settings.rope_scaling)
    kinds = ("default", *ROPE_INIT_FUNCTIONS)
    if not own:
        raise IncompatibleError(
            f"lm.rope_scaling on {settings.name}: its configuration has no rotation that could be scaled"
        )
    if given.get("rope_type") not in kinds:
        raise unknown("lm.rope_scaling.rope_type", str(given.get("rope_type")), kinds)
    kept = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    config.rope_parameters = {key: own[key] for key in kept if key in own} | given
    try:
        config.standardize_rope_params()
        config.validate_rope()
        hf_positions.scaling_settings(config)
    except IncompatibleError:
        pass  # then it is a black box, and its own code scales
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"lm.rope_scaling {given}: {first_line(error)}; give what transformers' rope type "
            f"{given['rope_type']!r} needs"
        ) from None


def black_box(config: Any, name: str) -> dict[str, Any]:
    """Settings of the scheme that stands for positions of its own, with the longest text that it can read."""
    from transformers import AutoModelForCausalLM

    with explained(name), torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    return {
        "_target_": f"{OpaquePositions.__module__}.{OpaquePositions.__name__}",
        "max_position_embeddings": longest(empty, config),
    }


def longest(model: torch.nn.Module, config: Any) -> int:
    """Tokens that a model has positions for where it looks them up in a table; 0 where there is none."""
    limit = getattr(config, "max_position_embeddings", None) or 0
    words = model.get_input_embeddings()  # type: ignore[operator]
    tables = [
        one.weight for one in model.modules() if isinstance(one, torch.nn.Embedding) and one is not words
    ]
    tables += [buffer for buffer in model.buffers() if buffer.dim() > 1]
    # Some tables have a few rows more, for padding.
    table = any(limit <= size <= limit + 8 for tensor in tables for size in tensor.shape)
    return limit if limit and table else 0


def load_hf_model(pretrained: PretrainedInfo) -> torch.nn.Module:
    """transformers' own model, whole, on the CPU, in evaluation mode.

    Raises:
        DataError: if weights are missing.
    """
    from transformers import AutoModelForCausalLM

    settings, name = pretrained.settings, pretrained.settings.name
    model, report = found(
        AutoModelForCausalLM,
        settings,
        config=configuration(settings),
        dtype=getattr(torch, settings.dtype),
        output_loading_info=True,
    )
    # Without a word to anybody these would be drawn at random.
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise DataError(f"{name} has no weights {missing[0]} as its config.json asks for: is it whole?")
    return model.eval()


def where(settings: LMSettings, config: Any) -> str:
    """What a model is: on the hub a commit, in a folder the content of its files."""
    folder = Path(settings.name)
    if not folder.exists():
        commit = getattr(config, "_commit_hash", None) or settings.revision
        return f"{settings.name}@{commit}"
    files = next((some for some in (sorted(folder.glob(kind)) for kind in WEIGHTS) if some), [])
    if not files:
        raise DataError(f"{settings.name} is no model that can be loaded (it has no weights): {REMEDY}")
    digests = []
    for path in [folder / "config.json", *files]:
        with path.open("rb") as file:
            digests.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return identity(digests)


def model_dims(config: Any) -> dict[str, int]:
    """Of layers, width, heads and so on, for people and for planning."""

    def of(name: str, default: int = 1) -> int:
        return int(getattr(config, name, None) or default)

    width, heads = of("hidden_size"), of("num_attention_heads")
    return {
        "n_layers": of("num_hidden_layers"),
        "d_model": width,
        "n_heads": heads,
        "head_dim": of("head_dim", max(1, width // heads)),
        "intermediate_size": of("intermediate_size", 4 * width),
    }


def first_line(error: BaseException) -> str:
    """Of an error that may have many."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Whatever transformers says of a model that it cannot have, as one line."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        line = first_line(error)
        if "gated" in line or "401" in line or "403" in line:
            raise DataError(
                f"model {name!r} is gated or private: accept its licence on the hub, log in with `hf auth login`, "
                "and try again"
            ) from None
        if "trust_remote_code" in str(error):
            line = "it needs code of its own, which is not run"
        if "for this kind of AutoModel" in line:
            line = "it is no causal language model"
        raise DataError(f"{name} is no model that can be loaded ({line}): {REMEDY}") from None
