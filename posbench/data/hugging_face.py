"""A tokenizer by its Hugging Face name, its folder or its tokenizer.json; this machine is looked at first."""

from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from posbench.data import subword
from posbench.data.network import need_hub
from posbench.data.subword import Subword
from posbench.errors import ConfigError, DataError

OFFLINE = "data.tokenizer.kind=bytes or bpe, or a folder that holds a tokenizer"


@cache
def load(name: str) -> Subword:
    if not name:
        raise ConfigError(
            f"data.tokenizer.kind=hugging_face needs data.tokenizer.name: a hub name, or {OFFLINE}"
        )
    encoder = subword.open_file(Path(name)) if name.endswith(".json") else backend(name)
    return subword.exact(encoder, name)


def beginning(name: str) -> int:
    """The id that begins a text for the model of a tokenizer: its bos, else its eos (GPT-2), else its pad."""
    found = auto(name)
    for index in (found.bos_token_id, found.eos_token_id, found.pad_token_id):
        if index is not None:
            return int(index)
    raise DataError(f"tokenizer {name!r} has no bos, eos or pad that could begin a document: choose another")


def backend(name: str) -> Tokenizer:
    found = auto(name)
    if getattr(found, "backend_tokenizer", None) is None:
        raise DataError(
            f"tokenizer {name!r} has no fast form, which exact byte counts need: choose {OFFLINE}"
        )
    return found.backend_tokenizer


@cache
def auto(name: str) -> Any:
    """transformers' tokenizer."""
    from transformers import AutoTokenizer

    try:
        try:
            return AutoTokenizer.from_pretrained(name, local_files_only=True)
        except OSError:
            if Path(name).exists():
                raise
            need_hub(f"tokenizer {name!r}", OFFLINE)
            return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{name!r} is no tokenizer that can be loaded ({reason}): choose {OFFLINE}") from None
