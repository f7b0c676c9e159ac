"""Python sources of the pinned dependencies: real text, with the same bytes wherever the lock file is installed.

sources.manifest, which `python -m posbench.data.manifest` writes, lists every file with its hash and split.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import metadata, resources
from typing import NamedTuple

from posbench import checksums
from posbench.config.data import DataSettings
from posbench.data.source import Document, Source, digest
from posbench.errors import DataError


class Entry(NamedTuple):
    """A line of the manifest; its fields are separated by tabs."""

    split: str
    sha256: str  # the first 16 hexadecimal digits
    size: int  # bytes
    package: str  # a requirement, as in transformers==5.23.0
    path: str  # relative to site-packages

    def line(self) -> str:
        """Formats the entry as a line."""
        return "\t".join(map(str, self))

    @classmethod
    def parse(cls, line: str) -> "Entry":
        """Parses a line."""
        split, sha256, size, package, path = line.split("\t")
        return cls(split, sha256, int(size), package, path)


def short_sha256(content: bytes) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def manifest() -> tuple[Entry, ...]:
    """Returns the entries of the manifest."""
    content = resources.files("posbench.data").joinpath("sources.manifest").read_bytes()
    if not checksums.verify_bytes(content):
        raise DataError("posbench/data/sources.manifest does not match its checksum: install posbench again")
    lines = content.decode("utf-8").splitlines()
    return tuple(Entry.parse(line) for line in lines if not line.startswith("#"))


def read(entry: Entry) -> bytes:
    """Reads a file; raises DataError if it is missing or is not the file of the manifest."""
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
        raise DataError(f"data=sources reads {entry.path}, which {found} lacks: {remedy}") from None
    if short_sha256(content) != entry.sha256:
        found = f"{version} is pinned, {distribution.version} is installed"
        raise DataError(f"{entry.path} is not the file that data=sources lists ({found}): {remedy}")
    return content


class PinnedSources(Source):
    """The source `sources`: the files of the manifest."""

    def __init__(self, config: DataSettings) -> None:
        pass

    def fingerprint(self) -> str:
        return digest(f"{entry.split} {entry.sha256} {entry.path}" for entry in manifest())

    def documents(self, split: str) -> Iterator[Document]:
        for entry in manifest():
            if entry.split == split:
                yield Document(entry.path, read(entry).decode("utf-8"))
