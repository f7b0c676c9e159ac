"""Faults: on a file system without locks, flock's ENOLCK ended a sweep or the build of a corpus with a traceback, and with
ENOSYS a file that outlives a killed process was the lock.
"""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from posbench.data import build
from posbench.errors import DataError
from posbench.files import Lock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ENOTSUP, errno.ENOSYS])
def test_a_lock_that_is_refused_is_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for lock in (
        lambda: Lock(tmp_path / "a.lock").acquire(timeout=0),
        lambda: build.ensure(tmp_path / "a", list),
    ):
        with pytest.raises(
            DataError, match=rf"a\.lock cannot be locked \({os.strerror(number)}\): choose"
        ) as caught:
            lock()
        assert "\n" not in str(caught.value)
