"""Atomic writes: a file or folder appears under its name only once it is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from posbench.errors import DataError


@contextmanager
def atomic_path(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path beside `path`, to be written as a file or a folder, which then replaces `path`.

    A process that is killed leaves `path` as it was. If the block raises, the temporary path is removed.

    Args:
        temporary: by default a hidden name with the process id, so that several processes can write at once. A
            fixed name, which requires a lock, lets the next writer remove what a killed one has left.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)  # os.replace does not replace a folder that has content
        os.replace(temporary, path)
    finally:
        _remove(temporary)


class Lock(FileLock):
    """A file lock that the operating system releases when the process ends."""

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        """Acquires the lock; raises Timeout if it is held elsewhere, and DataError if the file cannot be locked."""
        try:
            return super().acquire(*args, **kwargs)
        except Timeout:
            raise
        except OSError as error:  # such as a network file system that is mounted without locks
            raise DataError(
                f"{self.lock_file} cannot be locked ({error.strerror or error}): choose a runtime.results_dir and a "
                "runtime.cache_dir on a disk that is writable and has file locks"
            ) from None


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically, with its line ends as they are."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
