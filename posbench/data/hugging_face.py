"""A tokenizer by its Hugging Face name, its folder or its tokenizer.json; this machine is looked at first."""

from functools import cache
from pathlib import Path

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


def backend(name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        try:
            found = AutoTokenizer.from_pretrained(name, local_files_only=True)
        except OSError:
            if Path(name).exists():
                raise
            need_hub(f"tokenizer {name!r}", OFFLINE)
            found = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{name!r} is no tokenizer that can be loaded ({reason}): choose {OFFLINE}") from None
    if getattr(found, "backend_tokenizer", None) is None:
        raise DataError(
            f"tokenizer {name!r} has no fast form, which exact byte counts need: choose {OFFLINE}"
        )
    return found.backend_tokenizer
