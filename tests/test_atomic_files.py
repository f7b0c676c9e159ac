"""Atomic writes: a reader sees the old content or the new one, never a part of it."""

from pathlib import Path

import pytest

from posbench.files import atomic_path, write_text


def test_text_is_written_as_it_is_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "naïve\r\n")
    write_text(path, "∑\n")
    assert path.read_bytes() == "∑\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "second"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_the_old_content_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kept"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.mkdir() if kind == "folder" else temporary.touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_the_remains_of_a_killed_writer_are_replaced(tmp_path: Path) -> None:
    partial = tmp_path / "folder.partial"
    partial.mkdir()
    (partial / "stray").touch()
    with atomic_path(tmp_path / "folder", partial) as temporary:
        temporary.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
