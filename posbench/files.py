"""Atomic writes: a file or folder appears under its name only once it is complete and on the disk."""

import errno
import itertools
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from posbench.errors import ConfigError, DataError

_log = logging.getLogger(__name__)

# The names of temporary files end with the process id and the host; those of older versions, with the process id.
_TEMPORARY = re.compile(r"\.(\d+)(?:@([^@]*))?\.tmp")
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)  # a file, or a folder in its place
FOREIGN_AGE = 86_400  # seconds after which a temporary file of another host is left over


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, to be written as a file or a folder, which then replaces `path`.

    A process that is killed, or a crash of the machine, leaves the old or the new content; of a folder that replaces
    another neither, if it comes between two renames. If the block raises, the temporary path is removed.

    Several processes can write at once, since the temporary path has a hidden name with the process id and the host.

    Raises:
        ConfigError: if the path cannot be written, for example because the disk is full.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent)
        _delete(temporary)
        yield temporary
        _sync(temporary)
        # os.replace does not replace a folder that has content.
        old = _rename_away(path) if temporary.is_dir() else None
        os.replace(temporary, path)  # if a crash undoes it, the file is absent or old, and is made again
        if old:
            with suppress(OSError):  # what stays is a leftover
                _delete(old)
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        with suppress(OSError):
            _delete(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def staged(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields a temporary folder with some folders inside, whose files move to those of `folder` if the block succeeds.

    Each file replaces the one of its name at once; other files stay.

    Raises:
        ConfigError: if one of the folders is a link, whose files may belong to others, or cannot be written.
    """
    temporary = _temporary(folder / "files")
    try:
        _remove_leftovers_once(folder)
        _delete(temporary)
        for name in names:
            (temporary / name).mkdir(parents=True)
        yield temporary
        for name in names:
            if (folder / name).is_symlink():
                raise ConfigError(
                    f"{folder / name} is a link: remove it, so that a folder can take its place"
                )
            (folder / name).mkdir(exist_ok=True)
            _sync(temporary / name)
            for path in sorted((temporary / name).iterdir()):
                os.replace(path, folder / name / path.name)
    except OSError as error:
        raise write_error(folder, error) from None
    finally:
        with suppress(OSError):
            _delete(temporary)


class Lock(FileLock):
    """A file lock that the operating system releases when the process ends."""

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        """Acquires the lock; raises Timeout if it is held elsewhere, and DataError if the file cannot be locked."""
        try:
            acquired = super().acquire(*args, **kwargs)
            if not isinstance(self, Lock):  # filelock now uses a file that outlives a killed process
                self.release()
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            return acquired
        except Timeout:
            raise
        except (
            OSError,
            NotImplementedError,
        ) as error:  # of a network file system that is mounted without locks
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.lock_file} cannot be locked ({reason}): choose a runtime.results_dir and a "
                "runtime.cache_dir on a disk that is writable and has file locks"
            ) from None


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically, with its line ends as they are."""
    write_bytes(path, text.encode())


def check_writable(folder: Path) -> None:
    """Creates a folder to which a long computation will write; raises ConfigError if no file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(folder, error) from None


def write_error(path: Path, error: Exception) -> ConfigError:
    """Returns the error for a path that cannot be written."""
    if isinstance(error, FileExistsError | NotADirectoryError) and (file := file_in_place_of(path)):
        return ConfigError(
            f"{path} cannot be written, because {file} is a file, not a folder: remove it, or choose another folder"
        )
    if isinstance(error, IsADirectoryError):
        return ConfigError(f"{path} cannot be written, because it is a folder: give a file, or remove it")
    number = _error_number(error)
    reason = (isinstance(error, OSError) and error.strerror) or (number and os.strerror(number))
    return ConfigError(
        f"{path} cannot be written ({reason or ' '.join(str(error).split())}): make room or choose another folder, "
        "then run the same command again"
    )


def raise_if_transient(path: Path, error: object) -> None:
    """Raises DataError for an error of the system that may pass, such as too many open files; a missing file is none."""
    if isinstance(error, OSError) and (number := _error_number(error)) and number not in MISSING:
        raise DataError(
            f"{path} cannot be read ({os.strerror(number)}): make it readable, then run the same command again"
        ) from None


def _error_number(error: Exception) -> int | None:
    """Returns the number of the operating system's error, which libraries in Rust and C++ give in their message alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"(?:os error|errno) (\d+)", str(error), re.IGNORECASE)
    return int(found[1]) if found else None


def file_in_place_of(folder: Path) -> Path | None:
    """Returns the file that stands where a folder, or one above it, would be."""
    return next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)


def set_aside(path: Path, reason: object, report: Callable[[str], object] = _log.warning) -> None:
    """Renames a damaged file or folder to a free name *.damaged-N, so that it can be inspected and is made again.

    Args:
        report: called with one line, unless another process was faster.

    Raises:
        DataError: if the reason is an error that may pass, after which the file may be whole.
    """
    raise_if_transient(path, reason)
    names = (path.with_name(f"{path.name}.damaged-{n}") for n in itertools.count(1))
    target = next(name for name in names if not name.exists())
    try:
        path.rename(target)
    except FileNotFoundError:  # another process was faster
        return
    except OSError as error:
        raise write_error(path, error) from None
    report(f"{path} cannot be used ({reason}): it is set aside as {target.name} and made again")


def remove(path: Path) -> None:
    """Removes a file or folder; other processes find a folder whole or not at all."""
    _delete(_rename_away(path) if path.is_dir() else path)


def _rename_away(path: Path) -> Path:
    """Renames a folder to a temporary name, and returns that name."""
    doomed = _temporary(path.with_name(f"{path.name}.old"))
    with suppress(FileNotFoundError):  # another process was faster
        path.rename(doomed)
    return doomed


def remove_leftovers(folder: Path, locked: bool = False) -> None:
    """Removes the temporary files in a folder whose writers are dead.

    Args:
        locked: whether the caller holds a lock that every writer of the folder needs, so that all writers are dead.
    """
    for path in folder.glob("*.tmp"):
        match = _TEMPORARY.search(path.name)
        with suppress(OSError):  # another process was faster
            if match and (locked or is_dead(int(match[1]), match[2], path.stat().st_mtime)):
                _delete(path)


_remove_leftovers_once = lru_cache(maxsize=None)(remove_leftovers)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}@{host()}.tmp")


def host() -> str:
    """Returns a name of the processes among which a process id is unique and file locks hold.

    They are those of one boot of one machine, or of a container: containers can share a host name, and the inode of the
    first namespace of processes is the same on every machine.
    """
    name = socket.gethostname()
    with suppress(OSError):
        name += f"-{os.stat('/proc/self/ns/pid').st_ino}"
        name += f"-{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}"
    return name


def is_dead(pid: int, name: str | None, changed: float) -> bool:
    """Returns whether a process has ended; for one of another host, whether its file changed FOREIGN_AGE ago.

    Args:
        name: its host, as `host` returns it.
        changed: seconds of the clock when it last wrote.
    """
    if name not in (None, host()):
        return time.time() - changed > FOREIGN_AGE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # the process of another user
        return False
    return False


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Writes a file, or a folder with its files, to the disk."""
    for inner in path.iterdir() if path.is_dir() else ():
        _sync_one(inner)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot do this for a folder
            raise
    finally:
        os.close(handle)
