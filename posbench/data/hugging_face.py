"""Tokenizers by a name on the Hugging Face hub, a folder or a tokenizer.json; local files are tried first."""

from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from posbench.data import subword
from posbench.data.network import need_hub
from posbench.data.subword import Subword
from posbench.errors import ConfigError, DataError, PosbenchError

OFFLINE = "data.tokenizer.kind=bytes or bpe, or a folder that holds a tokenizer"


@cache
def load(name: str, revision: str = "") -> Subword:
    """Loads a tokenizer, of a revision on the hub, without its steps that alter text."""
    if not name:
        raise ConfigError(
            f"data.tokenizer.kind=hugging_face needs data.tokenizer.name: a hub name, or {OFFLINE}"
        )
    encoder = subword.open_file(Path(name)) if name.endswith(".json") else load_fast(name, revision)
    return subword.make_lossless(encoder, name)


def bos_id(name: str, revision: str = "") -> int:
    """Returns the id at the start of a text for a tokenizer's model: its bos, else its eos (GPT-2), else its pad.

    Raises:
        DataError: if it has none of them, or is a single file.
    """
    if name.endswith(".json"):
        raise DataError(
            f"data.tokenizer.name {name!r}: a file does not state which id begins a text for a pretrained model; give "
            "the folder of the tokenizer"
        )
    loaded = load_auto(name, revision)
    for index in (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id):
        if index is not None:
            return int(index)
    raise DataError(f"tokenizer {name!r} has no bos, eos or pad to start a document with: choose another")


def load_fast(name: str, revision: str = "") -> Tokenizer:
    """Loads the tokenizer of the `tokenizers` library inside a tokenizer of transformers."""
    loaded = load_auto(name, revision)
    if getattr(loaded, "backend_tokenizer", None) is None:
        raise DataError(
            f"tokenizer {name!r} has no fast version, which exact byte counts require: choose {OFFLINE}"
        )
    return loaded.backend_tokenizer


@cache
def load_auto(name: str, revision: str = "") -> Any:
    """Loads a tokenizer of transformers, of a revision on the hub, by default main."""
    from transformers import AutoTokenizer

    if name.startswith(("/", ".")) and not Path(name).exists():
        raise DataError(
            f"data.tokenizer.name {name!r}: there is no such folder; give a hub name, or {OFFLINE}"
        )
    if revision and Path(name).exists():
        raise ConfigError(
            f"revision {revision!r} of tokenizer {name!r}: a folder has none; give a name on the hub, or remove it"
        )
    revision = revision or "main"
    try:
        try:
            return AutoTokenizer.from_pretrained(
                name, revision=revision, local_files_only=True, trust_remote_code=False
            )
        except OSError:
            if Path(name).exists():
                raise
            need_hub(f"tokenizer {name!r}", OFFLINE)
            return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except PosbenchError:
        raise
    except Exception as error:  # the Rust library raises no class of its own
        reason = str(error).strip().split("\n")[0].rstrip()
        if reason.endswith(":"):  # a list of what is missing follows
            reason = "it has no file of a tokenizer"
        if "trust_remote_code" in str(error):
            reason = "it needs its repository's own code, which is not executed"
        raise DataError(
            f"{name!r} is not a tokenizer that can be loaded ({reason}): choose {OFFLINE}"
        ) from None
