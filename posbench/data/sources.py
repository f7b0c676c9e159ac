"""Python sources of the pinned dependencies: real text, the same bytes wherever the lock is installed.

sources.manifest, which `python -m posbench.data.manifest` writes, names every file with its hash and split.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import metadata, resources
from typing import NamedTuple

from posbench.config.data import DataSettings
from posbench.data.source import Document, digest
from posbench.errors import DataError


class Entry(NamedTuple):
    """One line of the manifest, tab-separated."""

    split: str
    sha256: str  # its first 16 hex digits
    size: int
    package: str  # a requirement, as in transformers==5.23.0
    path: str  # below site-packages

    def line(self) -> str:
        return "\t".join(map(str, self))

    @classmethod
    def parse(cls, line: str) -> "Entry":
        split, sha256, size, package, path = line.split("\t")
        return cls(split, sha256, int(size), package, path)


def short_sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def manifest() -> tuple[Entry, ...]:
    lines = resources.files("posbench.data").joinpath("sources.manifest").read_text("utf-8").splitlines()
    return tuple(Entry.parse(line) for line in lines if not line.startswith("#"))


def read(entry: Entry) -> bytes:
    """The file's bytes, which are those that the manifest was made from."""
    package, version = entry.package.split("==")
    remedy = f"run pip install {entry.package}, or choose data=stdlib or data=files"
    try:
        distribution = metadata.distribution(package)
        content = distribution.locate_file(entry.path).read_bytes()  # type: ignore[attr-defined]
    except metadata.PackageNotFoundError:
        raise DataError(
            f"data=sources reads {entry.path}, but {package} is not installed: {remedy}"
        ) from None
    except OSError:
        found = f"the installed {package} {distribution.version}"
        raise DataError(f"data=sources reads {entry.path}, which {found} does not have: {remedy}") from None
    if short_sha256(content) != entry.sha256:
        found = f"{version} is pinned, {distribution.version} is installed"
        raise DataError(f"{entry.path} is not the file that data=sources lists ({found}): {remedy}")
    return content


class PinnedSources:
    def __init__(self, config: DataSettings) -> None:
        pass

    def fingerprint(self) -> str:
        return digest(f"{entry.split} {entry.sha256} {entry.path}" for entry in manifest())

    def documents(self, split: str) -> Iterator[Document]:
        for entry in manifest():
            if entry.split == split:
                yield Document(entry.path, read(entry).decode("utf-8"))
