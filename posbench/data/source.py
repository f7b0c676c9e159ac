"""Where text comes from: documents by split, and a fingerprint of what they say."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from posbench.errors import DataError

OFFLINE = "data=sources, data=stdlib or data=files"


class Document(NamedTuple):
    name: str
    text: str


class Source(Protocol):
    def fingerprint(self) -> str:
        """Changes whenever a document or its split does. Cheap: it is asked for at every plan."""
        ...

    def documents(self, split: str) -> Iterator[Document]:
        """In an order that is the same on every machine."""
        ...


def digest(parts: Iterable[str]) -> str:
    """A short hash of a sequence of strings."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(f"{len(part)}:{part}".encode())
    return sha.hexdigest()[:16]


def cell(row: dict[str, Any], column: str, where: object) -> Any:
    if column not in row:
        raise DataError(f"{where} has no column {column!r}: choose one of {', '.join(row)}")
    return row[column]


def text_cell(row: dict[str, Any], column: str, where: object) -> str:
    """The text in a row of a table, empty where there is none."""
    text = cell(row, column, where)
    if not isinstance(text, str | None):
        raise DataError(f"{where}: column {column!r} holds {type(text).__name__}, not text: choose another")
    return text or ""
