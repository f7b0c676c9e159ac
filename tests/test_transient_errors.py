"""Errors of reading that may pass, such as too many open files: one line, and what was made stays where it is."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from posbench import checksums
from posbench.data import build
from posbench.errors import DataError
from posbench.plan.lr_selection import final_validation_loss
from posbench.results.rows import RowStore
from posbench.training import checkpoints

READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": lambda path: checkpoints.read_metadata(path.parent),
    "corpus": lambda path: build.ensure(path.parent, lambda: pytest.fail("built again")),
    "rows": lambda path: RowStore(path.parent).has("cell"),
    "rate": lambda path: final_validation_loss([path.parent]),
}


def fail(number: int) -> Callable[..., None]:
    def raises(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return raises


def one_line(reader: Callable[[], object], number: int) -> None:
    with pytest.raises(
        DataError, match=rf"cannot be read \({os.strerror(number)}\): make it readable"
    ) as caught:
        reader()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("kind", READERS)
def test_what_cannot_be_read_for_a_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int
) -> None:
    """Fault: too many open files counted as damage: whole checkpoints, corpora and cells were set aside and made again."""
    path = tmp_path / "folder" / "cell.parquet"
    path.parent.mkdir()
    path.touch()
    monkeypatch.setattr(checksums, "_once", fail(number))
    one_line(lambda: READERS[kind](path), number)
    assert [one.name for one in tmp_path.iterdir() if one.is_dir()] == ["folder"]


def test_the_number_of_a_message_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: safetensors names a file that it cannot open missing, and gives other errors as text."""
    folder = tmp_path / "final"
    checkpoints.write(folder, {"model": {"weight": torch.zeros(2)}}, {})

    def no_memory(*_: object, **__: object) -> None:
        raise OSError("Cannot allocate memory (os error 12)")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail(errno.EMFILE))
        one_line(lambda: checkpoints.tensors(folder, "model"), errno.EMFILE)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "load_file", no_memory)
        one_line(lambda: checkpoints.tensors(folder, "model"), errno.ENOMEM)
    assert checkpoints.tensors(folder, "model")
    (folder / "model.safetensors").unlink()
    assert checkpoints.tensors(folder, "model") is None, "a missing file is damage"


def test_rows_that_cannot_be_read_are_of_no_kernel_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: a cell that could not be opened counted as one of another kernel, and was computed again."""
    monkeypatch.setattr(pq, "read_table", fail(errno.EMFILE))
    one_line(lambda: RowStore(tmp_path).is_of_kernel("cell", "dense"), errno.EMFILE)
