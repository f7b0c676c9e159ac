"""A corpus as a pretrained model reads it: no ids but its tokenizer's, of which one begins each document."""

from pathlib import Path

import numpy as np
import pytest

from posbench.data import shard
from posbench.data.associative_recall import records_in
from posbench.data.config import DataConfig, TokenizerConfig
from posbench.data.corpus import fingerprint, open_corpus
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError


def config(folder: Path, **given: object) -> DataConfig:
    return DataConfig("mine", "files", TokenizerConfig("bytes"), path=str(folder), **given)


def test_documents_begin_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in range(30):
        (folder / f"{name}.txt").write_text(f"text {name}")
    own, plain = config(folder, keys=0, values=0, bos=7), config(folder)
    assert fingerprint(own) != fingerprint(plain), "other tokens are another corpus"
    assert fingerprint(plain) == fingerprint(config(folder, keys=3, values=4))
    corpus = open_corpus(own, tmp_path / "cache", lambda line: None)
    assert corpus.vocabulary.size == 256
    for split in ("train", "test"):
        for index in range(len(corpus.split(split))):
            assert corpus.split(split).document(index)[0] == 7


def test_ids_follow_one_another() -> None:
    plain, own = Vocabulary("t", 10, 3, 4), Vocabulary("t", 10, 3, 4, own_bos=2)
    assert (plain.bos, own.bos) == (10, 2)
    assert (plain.key_ids[0], own.key_ids[0], plain.size, own.size) == (11, 10, 18, 17)
    assert own.value_ids.tolist() == [13, 14, 15, 16]
    assert Vocabulary("t", 10, 0, 0, own_bos=2).size == 10


def test_a_vocabulary_without_keys_and_values() -> None:
    with pytest.raises(ConfigError, match=r"data.keys=0, data.values=5: .*0 of both"):
        Vocabulary("t", 10, 0, 5)
    with pytest.raises(ConfigError, match="task=key_value_uuid"):
        records_in(64, 0)


def test_tokens_above_a_low_bos_fit(tmp_path: Path) -> None:
    """The width of a token in the file follows from the largest id, which an own bos is not."""
    shard.write(tmp_path, "train", [("a", np.array([70_000]))], bos=0, largest=100_000)
    assert shard.read(tmp_path, "train").tokens.tolist() == [0, 70_000]
