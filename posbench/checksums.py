"""Checksums of the files that are read back for a number.

A JSON, parquet or text file contains the SHA-256 of its own bytes, computed with the 64 digits of the checksum as zeros.
The other files of a folder are listed with their SHA-256 in a JSON file of that folder.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

KEY = "posbench_checksum"
BLANK = "sha256:" + "0" * 64
# The two parts are at most a few bytes apart: `": "` in JSON, a field header in the footer of a parquet file.
_MARK = re.compile(rb"posbench_checksum.{1,8}?sha256:([0-9a-f]{64})", re.DOTALL)
_PARTS = (KEY.encode(), b"sha256:")


class DamageError(ValueError):
    """A file whose content is not what was written."""


def seal(content: bytes) -> bytes:
    """Returns content that contains KEY and BLANK, in this order, with its checksum in place of the zeros."""
    digest, (start, end) = _own_digest(content)
    return content[:start] + digest.encode() + content[end:]


def dump_json(document: Mapping[str, Any]) -> bytes:
    """Returns a JSON object with its checksum as the last entry; values that JSON lacks become text."""
    return seal(json.dumps({**document, KEY: BLANK}, indent=1, default=str).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises DamageError if it cannot be parsed or fails its checksum."""
    verify(path)
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamageError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise DamageError(f"{path.name} is not a JSON object")
    document.pop(KEY, None)
    return document


def verify(path: Path) -> None:
    """Raises DamageError if a file fails the checksum that it contains. A file of an older version contains none."""
    if not _once(_is_sealed, path):
        raise DamageError(f"{path.name} does not match its checksum")


def verify_bytes(content: bytes) -> bool:
    """Returns whether content matches the checksum that it contains, or contains none."""
    if not any(part in content for part in _PARTS):
        return True
    found = _own_digest(content)
    return found[0].encode() == content[slice(*found[1])]


def verify_listed(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises DamageError for the first of the listed files whose SHA-256 differs, and OSError if one is missing."""
    for name, digest in digests.items():
        if file_digest(folder / name) != digest:
            raise DamageError(f"{name} does not match its checksum")


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal, computed once per process for each state of the file."""
    return _once(_file_digest, path)


def _own_digest(content: bytes) -> tuple[str, tuple[int, int]]:
    """Returns the SHA-256 of content with its last checksum as zeros, and the place of the digits."""
    start, end = 0, 0
    for mark in _MARK.finditer(content):
        start, end = mark.span(1)
    known = hashlib.sha256(content[:start])
    known.update(b"0" * (end - start))
    known.update(content[end:])
    return known.hexdigest(), (start, end)


def _once(function: Any, path: Path) -> Any:
    """Calls a cached function of a path and of what changes when the file is written again."""
    stat = path.stat()
    # Two writes in one tick of the clock of the file system have the same time.
    is_recent = time.time() - stat.st_ctime < 1.0
    function = function.__wrapped__ if is_recent else function
    return function(path, stat.st_size, stat.st_ctime_ns, stat.st_ino)


@lru_cache(maxsize=100_000)
def _file_digest(path: Path, size: int, changed: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=100_000)
def _is_sealed(path: Path, size: int, changed: int, inode: int) -> bool:
    return verify_bytes(path.read_bytes())
