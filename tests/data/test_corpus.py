"""Corpora: shards, fingerprints, and folders after kills, damage, moves and concurrent builds."""

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posbench.config.data import DataSettings, TokenizerSettings
from posbench.data import shard, sources
from posbench.data.corpus import Corpus, fingerprint, open_corpus
from posbench.errors import ConfigError, DataError
from posbench.files import host

Originals = dict[str, dict[str, str]]


def silent(line: str) -> None:
    pass


def content(corpus: Corpus) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(corpus.folder.iterdir())}


def test_documents_are_stored_whole_after_a_bos(
    config: DataSettings, tmp_path: Path, originals: Originals
) -> None:
    corpus = open_corpus(config, tmp_path / "cache", silent)
    for split, files in originals.items():
        packed = corpus.split(split)
        assert len(packed) == len(files)
        assert packed.tokens.dtype == np.uint16
        assert packed.starts[-1] == len(packed.tokens)
        for index, (name, text) in enumerate(files.items()):
            document = packed.document(index)
            assert packed.names[index] == f"{name}:0"
            assert document[0] == corpus.vocabulary.bos == 256
            assert corpus.tokenizer.decode(document[1:]) == text
            assert packed.lengths[index] == len(document) == 1 + len(text.encode())
            assert corpus.byte_lengths(document).sum() == len(text.encode())


def test_documents_are_found_by_length(config: DataSettings, tmp_path: Path, originals: Originals) -> None:
    train = open_corpus(config, tmp_path, silent).split("train")
    longest = 1 + len(originals["train"]["a.txt"].encode())
    assert train.longest == longest
    assert train.at_least(longest).tolist() == [0]
    assert train.at_least(longest + 1).tolist() == []
    assert train.at_least(1).tolist() == [0, 1, 2]


def test_reserved_ids_are_above_the_text_and_have_no_bytes(config: DataSettings, tmp_path: Path) -> None:
    corpus = open_corpus(config, tmp_path, silent)
    vocabulary = corpus.vocabulary
    reserved = np.concatenate([[vocabulary.bos], vocabulary.key_ids, vocabulary.value_ids])
    assert reserved.tolist() == list(range(256, 256 + 1 + 88 + 16))
    assert vocabulary.vocab_size == 361
    assert corpus.byte_lengths(reserved).sum() == 0
    assert corpus.byte_lengths(np.array([[0, 255], [256, 360]])).tolist() == [[1, 1], [0, 0]]


def test_large_vocabularies_take_four_bytes_a_token(tmp_path: Path) -> None:
    for bos, dtype in [(65_535, np.uint16), (65_536, np.uint32)]:
        shard.write(tmp_path, "train", [("a", np.array([bos - 1, 3]))], bos)
        read = shard.read(tmp_path, "train")
        assert read.tokens.dtype == dtype
        assert read.document(0).tolist() == [bos, bos - 1, 3]


def test_the_fingerprint_follows_the_content(config: DataSettings, texts: Path) -> None:
    before = fingerprint(config)
    assert fingerprint(config) == before
    assert fingerprint(replace(config, tokenizer=TokenizerSettings("bpe", 300))) != before
    assert (
        fingerprint(replace(config, paths=config.paths | {"test": str(texts / "test" / "e.txt")})) != before
    )
    (texts / "test" / "f.txt").write_text("agaim")
    assert fingerprint(config) != before


def test_the_fingerprint_does_not_depend_on_paths_and_labels(
    config: DataSettings, texts: Path, originals: Originals
) -> None:
    before = fingerprint(config)
    moved = texts.rename(texts.with_name("elsewhere"))
    paths = {split: str(moved / split) for split in originals}
    assert fingerprint(replace(config, paths=paths, name="other", num_keys=8, num_values=4)) == before


def test_an_existing_corpus_opens_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = open_corpus(DataSettings(), tmp_path / "here", silent)
    shutil.copytree(built.folder, tmp_path / "there" / built.fingerprint)

    def absent(entry: sources.Entry) -> bytes:
        raise AssertionError(f"{entry.path} was read")

    monkeypatch.setattr(sources, "read", absent)
    carried = open_corpus(DataSettings(), tmp_path / "there")
    assert content(carried) == content(built)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_pinned_corpus_opens_without_its_text(
    kind: str, config: DataSettings, texts: Path, tmp_path: Path, originals: Originals
) -> None:
    config = replace(config, tokenizer=TokenizerSettings(kind, 300))
    built = open_corpus(config, tmp_path / "cache", silent)
    shutil.rmtree(texts)
    pinned = open_corpus(replace(config, fingerprint=built.fingerprint), tmp_path / "cache", silent)
    assert pinned.vocabulary == built.vocabulary
    assert fingerprint(replace(config, fingerprint=built.fingerprint)) == built.fingerprint
    test = pinned.split("test")
    assert pinned.tokenizer.decode(test.document(0)[1:]) == originals["test"]["e.txt"]


def test_a_pinned_corpus_has_the_id_of_what_is_read(
    config: DataSettings, texts: Path, tmp_path: Path
) -> None:
    """Fault: ids of models contained the fingerprint of data.paths, and the text was that of data.fingerprint."""
    built = open_corpus(config, tmp_path / "cache", silent)
    other = replace(config, paths=config.paths | {"test": str(texts / "test" / "e.txt")})
    assert fingerprint(other) != built.fingerprint
    assert fingerprint(replace(other, fingerprint=built.fingerprint)) == built.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tokenizer": TokenizerSettings("bpe", 300)},
            "has the tokenizer bytes, not that of the settings (bpe 300)",
        ),
        ({"bos": 3}, "start with id 256, not with 3"),
    ],
)
def test_a_pinned_corpus_of_another_tokenizer(
    change: dict, message: str, config: DataSettings, tmp_path: Path
) -> None:
    """Fault: the tokens of the pinned folder were read by whatever tokenizer it had, and bos by that of the settings."""
    built = open_corpus(config, tmp_path / "cache", silent)
    with pytest.raises(DataError, match=re.escape(message)):
        open_corpus(replace(config, fingerprint=built.fingerprint, **change), tmp_path / "cache", silent)


def test_a_pinned_fingerprint_rejects_other_text(config: DataSettings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.fingerprint is 0123456789abcdef"):
        open_corpus(replace(config, fingerprint="0123456789abcdef"), tmp_path, silent)


@pytest.mark.parametrize("name", ["train.bin", "test.starts.npy", "validation.names.json", "meta.json"])
@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_a_damaged_corpus_is_set_aside_and_rebuilt(
    name: str, harm: str, config: DataSettings, tmp_path: Path
) -> None:
    built = open_corpus(config, tmp_path / "cache", silent)
    whole = content(built)
    victim = built.folder / name
    victim.unlink() if harm == "missing" else victim.write_bytes(victim.read_bytes()[:-5])
    lines: list[str] = []
    again = open_corpus(config, tmp_path / "cache", lines.append)
    assert content(again) == whole
    assert name in lines[0]
    assert "set aside" in lines[0]
    assert (tmp_path / "cache" / f"{built.fingerprint}.damaged-1").is_dir()


def test_the_remains_of_a_killed_build_are_replaced(config: DataSettings, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".{fingerprint(config)}.{dead.pid}@{host()}.tmp"
    left.mkdir()
    (left / "train.bin").write_bytes(b"half")
    (left / "stray").write_bytes(b"")
    assert "stray" not in content(open_corpus(config, tmp_path, silent))
    assert not left.exists()


def test_a_build_that_fails_leaves_no_corpus(config: DataSettings, texts: Path, tmp_path: Path) -> None:
    (texts / "test" / "f.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"f\.txt"):
        open_corpus(config, tmp_path / "cache", silent)
    assert not (tmp_path / "cache" / fingerprint(config)).exists()


def test_two_processes_that_build_at_once_build_once(tmp_path: Path) -> None:
    program = f"""
import hashlib, pathlib
from posbench.config.data import DataSettings
from posbench.data.corpus import open_corpus
test = open_corpus(DataSettings(), pathlib.Path({str(tmp_path)!r})).split("test")
print(hashlib.sha256(test.tokens.tobytes()).hexdigest())
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    corpus = open_corpus(DataSettings(), tmp_path, silent)
    expected = hashlib.sha256(corpus.split("test").tokens.tobytes()).hexdigest()
    assert [out.strip() for out, _ in outputs] == [expected] * 2
    assert sum(err.count("building the corpus") for _, err in outputs) == 1


def test_progress_is_passed_to_the_callback(
    config: DataSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    open_corpus(config, tmp_path, lines.append)
    assert lines[1] == "train: 327 tokens in 3 documents"
    assert capsys.readouterr() == ("", "")


def test_a_cache_that_cannot_be_written_is_named(config: DataSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"file/cache cannot be written.*choose another"):
        open_corpus(config, tmp_path / "file" / "cache", silent)


def test_errors_for_unknown_names_have_the_known_ones(config: DataSettings, tmp_path: Path) -> None:
    corpus = open_corpus(config, tmp_path, silent)
    with pytest.raises(ConfigError, match="did you mean 'validation'"):
        corpus.split("valid")
    with pytest.raises(ConfigError, match="did you mean 'stdlib'"):
        open_corpus(replace(config, source="stdlibs"), tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'bytes'"):
        open_corpus(replace(config, tokenizer=TokenizerSettings("byte")), tmp_path)
    with pytest.raises(ConfigError, match="at least 2"):
        open_corpus(replace(config, num_keys=1), tmp_path)
