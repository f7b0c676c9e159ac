"""Atomic writes: a reader sees the old content or the new one, never a part of it."""

import os
import subprocess
from pathlib import Path

import pytest

from posbench import files
from posbench.errors import ConfigError
from posbench.files import atomic_path, write_text

BOOT = Path("/proc/sys/kernel/random/boot_id")


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


def test_a_folder_is_deleted_after_its_successor_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the old checkpoint of a step was deleted first, so that a kill meanwhile lost the training."""
    deleted, delete = [], files._delete

    def recorded(path: Path) -> None:
        if ".old." in path.name:
            deleted.append([one.name for one in (tmp_path / "folder").iterdir()])
        delete(path)

    monkeypatch.setattr(files, "_delete", recorded)
    test_a_folder_replaces_a_folder(tmp_path)
    assert deleted[-1] == ["second"]


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


@pytest.mark.parametrize(
    ("name", "locked", "kept"),
    [
        ("step-00000007.{dead}.tmp", False, False),  # of an older version
        (".cell.parquet.{dead}.tmp", False, False),
        (".cell.parquet.{dead}@{host}.tmp", False, False),
        (".cell.parquet.{live}@{host}.tmp", False, True),
        (".cell.parquet.{dead}@elsewhere.tmp", False, True),
        (".cell.parquet.{dead}@elsewhere.tmp", True, False),
        ("notes.tmp", True, True),
    ],
)
def test_temporary_files_of_killed_writers_are_removed(
    tmp_path: Path, name: str, locked: bool, kept: bool
) -> None:
    """Whole checkpoints under temporary names once stayed for ever: 21 after 50 deaths."""
    process = subprocess.Popen(["true"])
    process.wait()
    path = tmp_path / name.format(dead=process.pid, live=os.getpid(), host=files.host())
    path.mkdir()
    files.remove_leftovers(tmp_path, locked)
    assert path.exists() == kept


@pytest.mark.skipif(not BOOT.exists(), reason="only Linux has the id of its boot as a file")
def test_a_host_is_one_boot_of_one_machine() -> None:
    """Fault: machines of one name had the same name here, and removed each other's temporary files of live processes."""
    assert files.host().endswith(f"-{BOOT.read_text()[:8]}")


def test_files_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was fsynced, so that a crash of the machine could leave an empty file under a final name."""
    events: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: events.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("replace"), replace(*names)))
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "file").touch()
    assert events == ["fsync", "fsync", "replace"]


@pytest.mark.parametrize("error", [OSError(28, "full"), OSError("I/O error: full (os error 28)")])
def test_a_full_disk_is_one_line(tmp_path: Path, error: OSError) -> None:
    """A full disk was "cannot be written (None)" or a traceback."""

    def fail() -> None:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.touch()
            raise error

    with pytest.raises(
        ConfigError, match=r"file cannot be written \((full|No space left on device)\): make room"
    ):
        fail()
    assert not list(tmp_path.iterdir())


def test_what_another_process_has_set_aside_is_no_error(tmp_path: Path) -> None:
    """The second of two processes that found the same broken model ended with FileNotFoundError."""
    said: list[str] = []
    files.set_aside(tmp_path / "gone", "damaged", said.append)
    assert said == []


def test_what_another_process_has_removed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: of two processes that removed one checkpoint, the slower ended with FileNotFoundError."""
    monkeypatch.setattr(Path, "is_dir", lambda path: path.name == "gone")  # until just now
    files.remove(tmp_path / "gone")
