"""Subword tokenizers that decode to the same bytes: a BPE that is trained here, or a tokenizer of Hugging Face.

Both are a `tokenizers.Tokenizer` without the steps that alter text: Unicode normalisation, an added first space (also
for models that were pretrained with one), and special tokens (text that spells one is encoded as text).
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from posbench.data.source import digest
from posbench.errors import ConfigError, DataError

FILE = "tokenizer.json"
TRAINING_TEXT = 100_000_000  # characters; more text changes a BPE little and takes memory
PROBE = "def f(x):\n\treturn  'naïve ﬁ…'  # ∑ 日本語 e\u0301 🙂\r\n\n  <s> [UNK] </s>\n"


class Subword:
    """A lossless subword tokenizer; implements posbench.data.tokenizer.Tokenizer.

    Raises:
        DataError: if decoding does not return the encoded text.
    """

    def __init__(self, name: str, encoder: Tokenizer) -> None:
        encoder.encode_special_tokens = True  # not saved in tokenizer.json
        self.name = name
        self.fingerprint = digest([encoder.to_str()])
        self._encoder = encoder
        self._pieces = bytes_of_ids(json.loads(encoder.to_str()), encoder.get_vocab())
        self._lengths = np.array([len(piece) for piece in self._pieces])
        self.vocab_size = len(self._pieces)
        if self.decode(self.encode(PROBE)) != PROBE:
            raise DataError(
                f"tokenizer {name!r} does not give text back exactly, which bits per byte require: "
                "choose a byte-level one such as gpt2, or data.tokenizer.kind=bytes or bpe"
            )

    def encode(self, text: str) -> np.ndarray:
        return self.encode_all([text])[0]

    def encode_all(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids: np.ndarray) -> str:
        return b"".join(self._pieces[i] for i in np.asarray(ids).tolist()).decode("utf-8", errors="replace")

    def byte_lengths(self, ids: np.ndarray) -> np.ndarray:
        return self._lengths[ids]

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self._encoder.to_str(pretty=True), "utf-8")


def open_file(path: Path) -> Tokenizer:
    """Loads a tokenizer.json; raises DataError if it is not one."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises no class of its own
        raise DataError(
            f"{path} is not a tokenizer.json that can be read ({error}): choose another"
        ) from None


def train(vocab_size: int, texts: Iterable[str]) -> Subword:
    """Trains a byte-level BPE, which has no unknown token; it is a pure function of the texts and `vocab_size`."""
    if vocab_size <= 256:
        raise ConfigError(
            f"data.tokenizer.vocab_size={vocab_size}: a byte-level BPE has at least 257 ids, of which 256 are the bytes"
        )
    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(alphabet), show_progress=False
    )
    encoder.train_from_iterator(head(texts, TRAINING_TEXT), trainer)
    return Subword(f"bpe-{vocab_size}", encoder)


def head(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Yields the first texts, up to `characters` characters in total; the last is cut."""
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def make_lossless(encoder: Tokenizer, name: str) -> Subword:
    """Returns a pretrained tokenizer without the steps that alter text."""
    spec = json.loads(encoder.to_str())
    spec |= {"truncation": None, "padding": None, "post_processor": None}
    spaces = [
        node
        for node in nested_dicts(spec["normalizer"])
        if node.get("type") == "Replace" and node["content"] == "▁"
    ]
    spec["normalizer"] = {"type": "Sequence", "normalizers": spaces} if spaces else None
    for node in nested_dicts(spec["pre_tokenizer"]):
        if "prepend_scheme" in node:
            node["prepend_scheme"] = "never"
        if "add_prefix_space" in node:
            node["add_prefix_space"] = False
    return Subword(name, Tokenizer.from_str(json.dumps(spec)))


def nested_dicts(spec: Any) -> Iterator[dict[str, Any]]:
    """Yields every dictionary within a tokenizer.json."""
    if isinstance(spec, dict):
        yield spec
    for child in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from nested_dicts(child)


def bytes_of_ids(spec: dict[str, Any], vocabulary: dict[str, int]) -> list[bytes]:
    """Returns the bytes of text of each id; empty for special tokens and unused ids."""
    steps = [spec["pre_tokenizer"], spec["decoder"]]
    byte_level = any(node.get("type") == "ByteLevel" for node in nested_dicts(steps))
    special = {token["content"] for token in spec["added_tokens"] if token["special"]}
    added = {token["content"] for token in spec["added_tokens"]}
    table = [b""] * (1 + max(vocabulary.values()))
    for token, index in vocabulary.items():
        if token in special:
            continue
        if not byte_level:
            table[index] = sentencepiece_bytes(token)
        elif token in added:
            table[index] = token.encode()
        else:
            table[index] = bytes(BYTE_OF[character] for character in token)
    return table


def sentencepiece_bytes(token: str) -> bytes:
    """Returns the bytes of a SentencePiece token, where ▁ is a space and <0x0A> a single byte."""
    if len(token) == 6 and token.startswith("<0x"):
        return bytes.fromhex(token[3:5])
    return token.replace("▁", " ").encode()


def byte_characters() -> dict[str, int]:
    """Returns the byte of each printable character of GPT-2: the byte itself if printable, else U+0100 onwards."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF = byte_characters()
