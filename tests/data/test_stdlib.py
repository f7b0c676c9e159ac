"""The standard library as a corpus: hand-written modules, each in one split."""

from pathlib import Path

import pytest

from posbench.config.data import DataSettings
from posbench.data.manifest import shingles
from posbench.data.splits import SPLITS
from posbench.data.stdlib import StandardLibrary
from posbench.errors import DataError


def test_modules_occur_once_and_tests_are_left_out() -> None:
    source = StandardLibrary(DataSettings(source="stdlib"))
    found = {split: {document.name for document in source.documents(split)} for split in SPLITS}
    names = set().union(*found.values())
    assert {"json/decoder.py", "typing.py", "heapq.py"} <= names
    assert not [name for name in names if "/tests/" in name or name.startswith(("test/", "site-packages/"))]
    assert sum(map(len, found.values())) == len(names)
    assert all(found.values())


def test_no_module_repeats_one_of_another_split() -> None:
    """Fault: test modules such as encodings/cp858.py were nearly whole in train."""
    source = StandardLibrary(DataSettings(source="stdlib"))
    train = set().union(*(shingles(document.text) for document in source.documents("train")))
    for split in ("validation", "test"):
        for document in source.documents(split):
            own = shingles(document.text)
            assert len(own & train) <= 0.35 * len(own), document.name
    (note,) = [one for one in source.notes if "repeat" in one]
    assert int(note.split()[2]) > 50


def test_the_fingerprint_follows_content_and_latin_1_is_skipped(tmp_path: Path) -> None:
    for name in ("a.py", "b.py", "deep/c.py", "test/d.py", "_sysconfigdata__linux.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    (tmp_path / "old.py").write_bytes(b"# na\xefve")

    def source() -> StandardLibrary:
        library = StandardLibrary(DataSettings())
        library.root = tmp_path
        return library

    assert list(source().texts) == ["a.py", "b.py", "deep/c.py"]
    before = source().fingerprint()
    (tmp_path / "test" / "d.py").write_text("changed")
    assert source().fingerprint() == before
    (tmp_path / "a.py").write_text("changed")
    assert source().fingerprint() != before


def test_a_library_without_sources_is_named(tmp_path: Path) -> None:
    source = StandardLibrary(DataSettings())
    source.root = tmp_path
    with pytest.raises(DataError, match=r"holds no Python sources: choose data=sources or data=files"):
        source.fingerprint()
