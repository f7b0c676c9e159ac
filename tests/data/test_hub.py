"""Data sets of the hub: documents from a stream, and errors without a network."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posbench.config.data import DataSettings
from posbench.config.validation import validate
from posbench.data import hub, network
from posbench.data.corpus import fingerprint, open_corpus
from posbench.data.hub import Hub, join_articles
from posbench.errors import ConfigError, DataError

COMMIT = "c0ffee" + "0" * 34
SETTINGS: dict[str, Any] = {"name": "pg19", "source": "hub", "repository": "some/books", "revision": COMMIT}


@pytest.fixture(params=["offline", "silent", "absent"])
def no_hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is switched off, accepts connections without replying, or does not exist."""
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        port = {"offline": 1, "silent": silent_server.getsockname()[1], "absent": 1}[request.param]
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", request.param == "offline")
        yield


@pytest.mark.usefixtures("no_hub")
def test_without_a_network_the_offline_choices_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network, "SECONDS", 1)
    began = time.monotonic()
    expected = r"data=pg19 \(some/books\) has to be downloaded.*data=sources, data=stdlib or data=files"
    with pytest.raises(DataError, match=expected) as caught:
        open_corpus(DataSettings(**SETTINGS), tmp_path, lambda line: None)
    assert time.monotonic() - began < 8
    assert "\n" not in str(caught.value)


def test_the_fingerprint_requires_no_network_and_depends_on_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    changes = [
        {},
        {"revision": COMMIT[::-1]},
        {"subset": "s"},
        {"train_bytes": 5},
        {"held_out": 1},
        {"lines": True},
    ]
    assert len({fingerprint(DataSettings(**SETTINGS | change)) for change in changes}) == len(changes)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Replaces the hub by twenty documents of ten bytes in each split."""
    stored = {
        split: [{"id": f"{split} {n}", "text": f"{n:>9}\n"} for n in range(20)]
        for split in ("train", "validation", "test")
    }

    def stream(config: DataSettings, split: str) -> Iterator[dict[str, Any]]:
        yield from stored[split]

    monkeypatch.setattr(hub, "stream_rows", stream)
    return stored


def names(config: DataSettings, split: str) -> list[str]:
    return [document.name for document in Hub(config).documents(split)]


def test_splits_are_those_of_the_data_set_and_train_ends_at_its_budget(rows: Any) -> None:
    config = DataSettings(**SETTINGS, name_column="id", train_bytes=25)
    assert names(config, "train") == ["train 0", "train 1", "train 2"]
    assert names(config, "test") == [f"test {n}" for n in range(20)]


def test_documents_are_held_out_of_the_only_split(rows: Any) -> None:
    config = DataSettings(**SETTINGS, held_out=3, train_bytes=20)
    assert names(config, "test") == ["train:0", "train:1", "train:2"]
    assert names(config, "validation") == ["train:3", "train:4", "train:5"]
    assert names(config, "train") == ["train:6", "train:7"]


def test_a_row_without_its_name_is_named_by_split_and_index(rows: Any) -> None:
    """Fault: every row whose name was null was called "None"."""
    rows["test"][1]["id"] = None
    assert names(DataSettings(**SETTINGS, name_column="id"), "test")[:3] == ["test 0", "test:1", "test 2"]


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:7], COMMIT.upper()])
def test_a_revision_is_a_commit(revision: str) -> None:
    """Fault: "main" was a revision, whose text changed under one fingerprint."""
    with pytest.raises(ConfigError, match=rf"revision '{revision}': give a commit: 40 hexadecimal digits"):
        validate(DataSettings(**SETTINGS | {"revision": revision}), "data.")


def test_a_corpus_is_built_from_a_stream(rows: Any, tmp_path: Path) -> None:
    corpus = open_corpus(DataSettings(**SETTINGS), tmp_path, lambda line: None)
    assert len(corpus.split("validation")) == 20
    assert corpus.tokenizer.decode(corpus.split("test").document(7)[1:]) == "        7\n"


def test_lines_are_joined_to_articles() -> None:
    lines = [
        "",
        " = One = \n",
        "",
        " Text . \n",
        " = = Part = = \n",
        " More . \n",
        " = Two = \n",
        " End . \n",
    ]
    assert list(join_articles(lines)) == [
        ("One", " = One = \n Text . \n = = Part = = \n More . \n"),
        ("Two", " = Two = \n End . \n"),
    ]


def test_an_error_of_the_hub_becomes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such revision\nwith a long tail")

    monkeypatch.setattr(hub, "need_hub", lambda what: None)
    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(
        DataError, match=rf"some/books@{COMMIT}: no such revision: try again, or choose data=sources"
    ):
        list(Hub(DataSettings(**SETTINGS)).documents("test"))


def test_wrong_columns_and_missing_settings(rows: Any) -> None:
    with pytest.raises(DataError, match=r"some/books has no column 'body': choose one of id, text"):
        names(DataSettings(**SETTINGS, text_column="body"), "test")
    with pytest.raises(ConfigError, match=r"needs data\.repository and data\.revision"):
        Hub(DataSettings(**SETTINGS | {"revision": ""}))
