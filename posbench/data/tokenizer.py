"""Tokenizers: text to ids and back, and the number of bytes of text of each id."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from posbench.config.data import TokenizerSettings
from posbench.data import hugging_face, subword
from posbench.errors import unknown

KINDS = ("bytes", "bpe", "hugging_face")


class Tokenizer(Protocol):
    """The interface of tokenizers. decode(encode(text)) is the text, and the byte lengths sum to its bytes."""

    name: str
    fingerprint: str
    vocab_size: int  # ids [0, vocab_size) encode text

    def encode(self, text: str) -> np.ndarray:
        """Returns (T,) ids."""
        ...

    def encode_all(self, texts: list[str]) -> list[np.ndarray]:
        """Encodes each text, on all cores."""
        ...

    def decode(self, ids: np.ndarray) -> str:
        """Returns the text of (T,) ids."""
        ...

    def byte_lengths(self, ids: np.ndarray) -> np.ndarray:
        """Returns the bytes of text of each id, in the shape of `ids`."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the files into a corpus folder that `reopen` needs on another machine."""
        ...


class Bytes:
    """A tokenizer with one id for each byte of UTF-8, without training or download."""

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
    """Returns the part of a corpus fingerprint that depends on the tokenizer; a BPE is determined by text and size."""
    match config.kind:
        case "bytes":
            return Bytes.fingerprint
        case "bpe":
            return f"bpe-{config.vocab_size}"
        case "hugging_face":
            return hugging_face.load(config.name, config.revision).fingerprint
    raise unknown("data.tokenizer.kind", config.kind, KINDS)


def make(config: TokenizerSettings, train_texts: Iterable[str]) -> Tokenizer:
    """Creates the tokenizer of the settings; a BPE is trained on `train_texts`."""
    match config.kind:
        case "bytes":
            return Bytes()
        case "bpe":
            return subword.train(config.vocab_size, train_texts)
        case "hugging_face":
            return hugging_face.load(config.name, config.revision)
    raise unknown("data.tokenizer.kind", config.kind, KINDS)


def reopen(folder: Path, name: str) -> Tokenizer:
    """Opens the tokenizer that was saved in a corpus folder."""
    if name == Bytes.name:
        return Bytes()
    return subword.Subword(name, subword.open_file(folder / subword.FILE))
