"""The interface of sources of text: documents by split, and a fingerprint of their content."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from posbench.errors import DataError

OFFLINE = "data=sources, data=stdlib or data=files"


class Document(NamedTuple):
    """A document and its name."""

    name: str
    text: str


class Source(Protocol):
    """A source of documents.

    Attributes:
        notes: lines for the user of a corpus that is built, such as what was left out; reading documents may add some.
    """

    notes: Sequence[str] = ()

    def fingerprint(self) -> str:
        """Returns a hash that changes with every document and its split; cheap, because every plan computes it."""
        ...

    def documents(self, split: str) -> Iterator[Document]:
        """Yields the documents of a split, in an order that is the same on every machine."""
        ...


def digest(parts: Iterable[str]) -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of a sequence of strings."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(f"{len(part)}:{part}".encode())
    return sha.hexdigest()[:16]


def column_value(row: dict[str, Any], column: str, where: object) -> Any:
    """Returns a column of a row; `where` names the table in the error."""
    if column not in row:
        raise DataError(f"{where} has no column {column!r}: choose one of {', '.join(row)}")
    return row[column]


def column_text(row: dict[str, Any], column: str, where: object) -> str:
    """Returns the text in a column of a row, empty if it has none."""
    text = column_value(row, column, where)
    if not isinstance(text, str | None):
        raise DataError(f"{where}: column {column!r} holds {type(text).__name__}, not text: choose another")
    return text or ""


def column_name(row: dict[str, Any], column: str, where: object, default: str) -> str:
    """Returns the name in a column of a row, or `default` if the row has none or no column is given."""
    value = column_value(row, column, where) if column else None
    return default if value in (None, "") else str(value)
