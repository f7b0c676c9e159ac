"""Loading of configurations and weights with transformers, with errors of one line.

Code from a model's repository is never executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open

from posbench.config.schema import LMSettings
from posbench.data.network import need_hub
from posbench.errors import ConfigError, DataError, IncompatibleError, PosbenchError, unknown
from posbench.identity import identity
from posbench.lm import hf_positions, hf_rope_scaling
from posbench.runtime.oom import is_out_of_memory

REMEDY = "give a folder with config.json and weights, or a causal language model's name on the hub"
WEIGHTS = ("*.safetensors", "*.bin")
ORIGINAL_LENGTH = "original_max_position_embeddings"
GENERATION_CONFIG = "generation_config.json"
# Arguments of transformers' `cached_file`.
ABSENT_IS_NONE = (
    "_raise_exceptions_for_missing_entries",
    "_raise_exceptions_for_connection_errors",
    "_raise_exceptions_for_gated_repo",
)
LFS_POINTER = b"version https://git-lfs"


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
    if settings.revision and path.exists():
        raise ConfigError(
            f"revision {settings.revision!r} of {name!r}: a folder has none; give a name on the hub, or remove it"
        )
    config = from_pretrained(AutoConfig, settings)
    if not hasattr(config, "vocab_size"):
        raise DataError(f"model {name!r} cannot be loaded (it is not a text-only model): {REMEDY}")
    size, padding = config.vocab_size, getattr(config, "pad_token_id", None)
    if padding is not None and padding >= size:
        raise DataError(
            f"{name}: its config.json has pad_token_id {padding}, and its {size} ids end at {size - 1}; set "
            "pad_token_id to one of them, or to null"
        )
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


def load_generation_config(settings: LMSettings) -> Any:
    """Loads generation_config.json of a model, first from local files and then from the hub; None without that file."""
    from transformers import GenerationConfig
    from transformers.utils.hub import cached_file

    name = settings.name
    where: dict[str, Any] = {"revision": settings.revision or "main"} | dict.fromkeys(ABSENT_IS_NONE, False)
    with one_line_errors(name):
        file = cached_file(name, GENERATION_CONFIG, local_files_only=True, **where)
        if file is None and not Path(name).exists():
            with contextlib.suppress(DataError):
                need_hub(f"{GENERATION_CONFIG} of {name!r}")
                file = cached_file(name, GENERATION_CONFIG, **where)
        return GenerationConfig.from_pretrained(Path(file).parent) if file else None


def override_rope_scaling(config: Any, settings: LMSettings) -> None:
    """Replaces the RoPE scaling of the configuration by that of the settings; rope_theta stays."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    own, requested = hf_positions.rope_parameters(config), dict(settings.rope_scaling)
    rope_types = ("default", *ROPE_INIT_FUNCTIONS)
    layer_types = [key for key in hf_positions.layer_rope_parameters(config) if key is not None]
    if layer_types:
        raise IncompatibleError(
            f"lm.rope_scaling on {settings.name}: its layers of type {' and '.join(layer_types)} have rope parameters "
            "of their own; remove lm.rope_scaling"
        )
    if not own:
        raise IncompatibleError(
            f"lm.rope_scaling on {settings.name}: its configuration has no rotation that could be scaled; remove "
            "lm.rope_scaling"
        )
    if requested.get("rope_type") not in rope_types:
        raise unknown("lm.rope_scaling.rope_type", str(requested.get("rope_type")), rope_types)
    kept = ("rope_theta", "partial_rotary_factor", ORIGINAL_LENGTH)
    config.rope_parameters = {key: own[key] for key in kept if key in own} | requested
    if ORIGINAL_LENGTH in requested and hasattr(config, ORIGINAL_LENGTH):
        setattr(config, ORIGINAL_LENGTH, requested[ORIGINAL_LENGTH])  # which transformers reads in its place
    try:
        config.standardize_rope_params()
        with recorded_warnings("transformers.modeling_rope_utils") as warnings:
            config.validate_rope()
        # Of keys that the type does not read, transformers only warns: "Unrecognized keys ...: {'a', 'b'}".
        ignored = [
            key for key in requested if any(repr(key) in line.rpartition(": ")[2] for line in warnings)
        ] + hf_rope_scaling.ignored_keys(config, requested)
        if ignored:
            raise ConfigError(
                f"lm.rope_scaling.{ignored[0]} changes nothing with rope_type {requested['rope_type']}: remove it, or give "
                "another rope_type"
            )
        hf_rope_scaling.scaling_settings(config)
    except IncompatibleError:
        pass  # becomes a black box, which transformers scales
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"lm.rope_scaling {requested}: {first_line(error)}; give what transformers' rope type "
            f"{requested['rope_type']!r} needs"
        ) from None


@contextlib.contextmanager
def recorded_warnings(name: str) -> Iterator[list[str]]:
    """Yields the messages of a logger inside the block, which are not printed."""
    lines: list[str] = []

    def record(entry: logging.LogRecord) -> bool:
        lines.append(entry.getMessage())
        return False

    logger = logging.getLogger(name)
    logger.addFilter(record)
    try:
        yield lines
    finally:
        logger.removeFilter(record)


def hub_commit(settings: LMSettings) -> str:
    """Returns the commit of a model on the hub whose configuration is in the cache."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    with one_line_errors(settings.name):
        file = cached_file(
            settings.name, "config.json", revision=settings.revision or "main", local_files_only=True
        )
    commit = extract_commit_hash(file, None)
    if commit is None:
        raise DataError(f"model {settings.name!r} has no commit in the cache of the hub: {REMEDY}")
    return commit


def source_id(settings: LMSettings) -> str:
    """Returns what identifies the weights: the commit on the hub, or a hash of the files in a folder."""
    folder = Path(settings.name)
    if not folder.exists():
        return f"{settings.name}@{hub_commit(settings)}"
    files = next((some for some in (sorted(folder.glob(pattern)) for pattern in WEIGHTS) if some), [])
    if not files:
        raise DataError(f"model {settings.name!r} cannot be loaded (it has no weights): {REMEDY}")
    digests = []
    for path in [folder / "config.json", *files]:
        check_file(path, settings.name)
        with path.open("rb") as file:
            digests.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return identity(digests)


def check_file(path: Path, name: str) -> None:
    """Raises DataError if a file of the model `name` is a git-lfs pointer, or a truncated safetensors file."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise DataError(
                f"model {name!r} cannot be loaded ({path.name} is a git-lfs pointer): run `git lfs pull` in its folder"
            )
    if path.suffix == ".safetensors":
        with one_line_errors(name, path.name), safe_open(path, "pt"):
            pass


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextlib.contextmanager
def one_line_errors(name: str, file: str = "") -> Iterator[None]:
    """Turns any error that transformers raises for a model, or for a file of it, into a DataError of one line."""
    try:
        yield
    except PosbenchError:
        raise
    except (
        Exception
    ) as error:  # of transformers, torch, safetensors, tokenizers, pickle: no common base class
        if is_out_of_memory(error):
            raise
        reason = f"{file}: {first_line(error)}" if file else first_line(error)
        if not Path(name).exists() and re.search(r"\bgated\b|\b40[13]\b", reason):
            raise DataError(
                f"model {name!r} is gated or private: accept its licence on the hub, log in with `hf auth login`, "
                "and try again"
            ) from None
        if "trust_remote_code" in str(error):
            reason = "it needs its repository's own code, which is not executed"
        if "for this kind of AutoModel" in reason:
            reason = "it is not a causal language model"
        raise DataError(f"model {name!r} cannot be loaded ({reason}): {REMEDY}") from None
