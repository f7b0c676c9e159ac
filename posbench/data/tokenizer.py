"""What turns text into ids and back, and knows how many bytes of text each id stands for."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from posbench.config.data import TokenizerSettings
from posbench.data import hugging_face, subword
from posbench.errors import unknown

KINDS = ("bytes", "bpe", "hugging_face")


class Tokenizer(Protocol):
    """encode and decode are exact inverses, and the byte lengths of encode(text) sum to the text's bytes."""

    name: str
    fingerprint: str
    vocab_size: int  # ids [0, vocab_size) encode text

    def encode(self, text: str) -> np.ndarray: ...

    def encode_all(self, texts: list[str]) -> list[np.ndarray]:
        """As encode does each, on every core."""
        ...

    def decode(self, ids: np.ndarray) -> str: ...

    def byte_lengths(self, ids: np.ndarray) -> np.ndarray: ...

    def save(self, folder: Path) -> None:
        """Leaves in a corpus folder what it takes to read the corpus on another machine."""
        ...


class Bytes:
    """One id a byte of UTF-8: nothing to train, nothing to download, nothing unknown."""

    name = "bytes"
    fingerprint = "bytes"
    vocab_size = 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)

    def encode_all(self, texts: list[str]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: np.ndarray) -> str:
        return np.asarray(ids).astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def byte_lengths(self, ids: np.ndarray) -> np.ndarray:
        return np.ones(np.shape(ids), dtype=np.int64)

    def save(self, folder: Path) -> None:
        pass


def tokenizer_id(config: TokenizerSettings) -> str:
    """What, beside the text, decides how it is tokenized. A BPE follows from its size: none is trained yet."""
    match config.kind:
        case "bytes":
            return Bytes.fingerprint
        case "bpe":
            return f"bpe-{config.vocab_size}"
        case "hugging_face":
            return hugging_face.load(config.name).fingerprint
    raise unknown("data.tokenizer.kind", config.kind, KINDS)


def make(config: TokenizerSettings, train_texts: Iterable[str]) -> Tokenizer:
    match config.kind:
        case "bytes":
            return Bytes()
        case "bpe":
            return subword.train(config.vocab_size, train_texts)
        case "hugging_face":
            return hugging_face.load(config.name)
    raise unknown("data.tokenizer.kind", config.kind, KINDS)


def reopen(folder: Path, name: str) -> Tokenizer:
    """The one that was saved in a corpus folder."""
    if name == Bytes.name:
        return Bytes()
    return subword.Subword(name, subword.open_file(folder / subword.FILE))
