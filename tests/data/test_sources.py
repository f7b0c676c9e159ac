"""The default corpus: every listed file is installed and in one split, and splits do not overlap."""

from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest

from posbench.config.data import DataSettings
from posbench.data import manifest as maker
from posbench.data import sources
from posbench.data.sources import Entry, PinnedSources
from posbench.data.splits import SPLITS, split_by_hash
from posbench.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def texts() -> dict[Entry, str]:
    """The text of every entry; reading verifies its hash."""
    return {entry: sources.read(entry).decode("utf-8") for entry in sources.manifest()}


def test_every_listed_file_is_installed_as_listed(texts: dict[Entry, str]) -> None:
    assert all(entry.size == len(text.encode()) for entry, text in texts.items())


def test_the_manifest_names_the_versions_of_the_lock() -> None:
    lock = (ROOT / "requirements-lock.txt").read_text().splitlines()
    assert {entry.package for entry in sources.manifest()} <= set(lock)


def test_no_document_is_in_two_splits() -> None:
    entries = sources.manifest()
    assert {entry.split for entry in entries} == set(SPLITS)
    assert len({entry.path for entry in entries}) == len({entry.sha256 for entry in entries}) == len(entries)


def test_held_out_lines_are_not_those_of_train(texts: dict[Entry, str]) -> None:
    """Counts lines, unlike the manifest, which counts words; a copied model would share more than 0.8."""
    lines = defaultdict(dict)
    for entry, text in texts.items():
        lines[entry.split][entry.path] = {
            line.strip() for line in text.splitlines() if len(line.strip()) >= 30
        }
    train = set().union(*lines["train"].values())
    for split in ("validation", "test"):
        shared = {path: len(own & train) / max(1, len(own)) for path, own in lines[split].items()}
        assert max(shared.values()) < 0.65, max(shared, key=shared.__getitem__)
        assert sum(shared.values()) / len(shared) < 0.15


def test_held_out_splits_hold_long_documents() -> None:
    def count(split: str, size: int) -> int:
        return sum(entry.split == split and entry.size >= size for entry in sources.manifest())

    assert count("test", 16_384) >= 64
    assert count("test", 65_536) >= 12
    assert count("validation", 4_096) >= 32


def test_the_manifest_stays_small_enough_to_review() -> None:
    assert len(sources.manifest()) <= 2500
    assert (Path(sources.__file__).parent / "sources.manifest").stat().st_size < 300_000


def test_documents_come_in_the_order_of_the_manifest(texts: dict[Entry, str]) -> None:
    documents = list(PinnedSources(DataSettings()).documents("validation"))
    assert documents == [(entry.path, text) for entry, text in texts.items() if entry.split == "validation"]


class Installed:
    """A fake distribution whose files are in another folder."""

    version = "5.22.0"

    def __init__(self, root: Path) -> None:
        self.root = root

    def locate_file(self, path: str) -> Path:
        return self.root / path


ENTRY = Entry("train", "0" * 16, 5, "transformers==5.23.0", "transformers/file.py")


def test_a_file_that_differs_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transformers").mkdir()
    (tmp_path / ENTRY.path).write_text("other")
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(tmp_path))
    expected = (
        r"file\.py is not .*\(5\.23\.0 is pinned, 5\.22\.0 is installed.*pip install transformers==5\.23\.0"
    )
    with pytest.raises(DataError, match=expected):
        sources.read(ENTRY)


def test_a_file_that_is_absent_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(tmp_path))
    with pytest.raises(DataError, match=r"file\.py.*5\.22\.0.*pip install transformers==5\.23\.0"):
        sources.read(ENTRY)


def test_a_package_that_is_absent_is_named() -> None:
    entry = ENTRY._replace(package="no-such-package==1.0")
    with pytest.raises(
        DataError, match=r"no-such-package is not installed: run pip install no-such-package==1\.0"
    ):
        sources.read(entry)


def test_the_fingerprint_follows_hashes_and_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = sources.manifest()
    before = PinnedSources(DataSettings()).fingerprint()
    for other in (entries[0]._replace(sha256="0" * 16), entries[0]._replace(split="test")):
        monkeypatch.setattr(sources, "manifest", lambda other=other: (other, *entries[1:]))
        assert PinnedSources(DataSettings()).fingerprint() != before


def listed(path: str, text: str) -> tuple[Entry, str]:
    return Entry("train", path, len(text), "p==1", path), text


def test_near_duplicates_are_dropped_and_the_larger_kept() -> None:
    words = [f"word{i} = call_{i * 7}(x)\n" for i in range(400)]
    original = "".join(words)
    renamed = original.replace("word1 ", "name1 ")[:-100]
    unrelated = "".join(f"other{i} = something_{i * 3}(y)\n" for i in range(100))
    kept = maker.distinct([listed("copy", renamed), listed("first", original), listed("new", unrelated)])
    assert [entry.path for entry in kept] == ["first", "new"]


def test_every_size_is_in_every_split() -> None:
    entries = [listed(f"{n}-{size}", "x" * size)[0] for size in (3_000, 70_000) for n in range(100)]
    split = maker.split(entries)
    for size in (3_000, 70_000):
        got = [entry.split for entry in split if entry.size == size]
        assert [got.count(name) for name in SPLITS] == [85, 5, 10]
    assert split == maker.split(reversed(entries))


def test_three_names_fill_every_split() -> None:
    split_of = split_by_hash(["a", "b", "c"])
    assert sorted(split_of.values()) == sorted(SPLITS)
    assert split_by_hash(["c", "a", "b"]) == split_of
