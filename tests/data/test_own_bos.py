"""Corpora of pretrained models: only ids of the tokenizer, and its bos at the start of a document."""

from pathlib import Path

import numpy as np
import pytest

from posbench.config.data import DataSettings, TokenizerSettings
from posbench.data import shard
from posbench.data.corpus import fingerprint, open_corpus
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError
from posbench.tasks.prompting import filler_text


def config(folder: Path, **given: object) -> DataSettings:
    return DataSettings("mine", "files", TokenizerSettings("bytes"), path=str(folder), **given)


def test_documents_start_with_the_bos_of_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in range(30):
        (folder / f"{name}.txt").write_text(f"text {name}")
    own, plain = config(folder, num_keys=5, num_values=4, bos=7), config(folder)
    assert fingerprint(own) != fingerprint(plain), "other tokens are another corpus"
    assert fingerprint(plain) == fingerprint(config(folder, num_keys=3, num_values=4))
    corpus = open_corpus(own, tmp_path / "cache", lambda line: None)
    assert corpus.vocabulary.vocab_size == 256
    for split in ("train", "test"):
        for index in range(len(corpus.split(split))):
            assert corpus.split(split).document(index)[0] == 7


def test_ids_are_consecutive() -> None:
    plain = Vocabulary("t", 10, 3, 4)
    assert (plain.bos, plain.key_ids[0], plain.vocab_size) == (10, 11, 18)
    assert plain.value_ids.tolist() == [14, 15, 16, 17]


@pytest.mark.parametrize("bos", [0, 50, 99])
def test_keys_and_values_of_a_pretrained_model_are_its_tokens(bos: int) -> None:
    """They are distinct, differ from bos, and are from the middle of the vocabulary; no ids are added."""
    own = Vocabulary("t", 100, 20, 10, own_bos=bos)
    symbols = [*own.key_ids.tolist(), *own.value_ids.tolist()]
    assert (own.bos, own.vocab_size) == (bos, 100)
    assert (len(own.key_ids), len(own.value_ids), len(set(symbols))) == (20, 10, 30)
    assert 25 <= min(symbols) <= max(symbols) <= 75
    assert bos not in symbols
    assert symbols == [*Vocabulary("t", 100, 20, 10, own_bos=bos).key_ids, *own.value_ids], "always the same"


def test_too_few_or_too_many_symbols() -> None:
    with pytest.raises(ConfigError, match=r"data.num_keys=0, data.num_values=5: .*at least 2 of each"):
        Vocabulary("t", 10, 0, 5)
    with pytest.raises(
        ConfigError, match=r"data.num_keys=40, data.num_values=10: more than half of this model's 100 tokens"
    ):
        Vocabulary("t", 100, 40, 10, own_bos=2)


def test_tokens_above_a_low_bos_fit(tmp_path: Path) -> None:
    """The width of a stored token depends on the largest id, which is not the bos of a pretrained model."""
    shard.write(tmp_path, "train", [("a", np.array([70_000]))], bos=0, largest=100_000)
    assert shard.read(tmp_path, "train").tokens.tolist() == [0, 70_000]


def test_running_text_keeps_the_id_of_bos_inside_documents(tmp_path: Path) -> None:
    """Fault: if bos was the id of a line end, all line ends were removed from filler text, and prompts were too short."""
    folder = tmp_path / "text"
    folder.mkdir()
    for name in range(30):
        (folder / f"{name}.txt").write_text("".join(f"line {name} {index}\n" for index in range(40)))
    corpus = open_corpus(config(folder, bos=10), tmp_path / "cache", lambda line: None)
    shard = corpus.split("test")
    running = np.concatenate([shard.document(index)[1:] for index in range(len(shard))])
    for seed in range(10):
        text = filler_text(corpus, np.random.default_rng(seed), 300)
        assert len(text) == 300
        assert 10 in text
        # Fault: no test noticed the bos at the start of a document, here an empty line, in the filler.
        assert bytes(text.tolist()) in bytes(running.tolist())
