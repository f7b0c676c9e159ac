"""Rows of parquet, json, jsonl and txt files, and of their gz versions: the wanted columns only, without any cache."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posbench.errors import DataError

KINDS = (".parquet", ".jsonl", ".json", ".txt")
SUFFIXES = (*KINDS, ".jsonl.gz", ".json.gz", ".txt.gz")

REMEDY = "repair or remove it"

Row = dict[str, Any]


def suffix(path: Path) -> str:
    """Returns the end of a file's name among SUFFIXES, or ""."""
    return max((end for end in SUFFIXES if path.name.endswith(end)), key=len, default="")


def rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the wanted columns of each row, None where a row has none. A txt file is one row with the first column.

    Raises:
        DataError: if the file cannot be read, a line is no object, or no row has one of the columns.
    """
    kind = suffix(path).removesuffix(".gz")
    with _errors(path, f"not readable {kind[1:]}"):
        if kind == ".parquet":
            yield from _parquet_rows(path, columns)
        elif kind == ".txt":
            with open_bytes(path) as file:
                yield {columns[0]: file.read().decode("utf-8")}
        else:
            yield from _json_rows(path, columns)


def json_lines(path: Path, remedy: str = REMEDY) -> Iterator[tuple[str, Any]]:
    """Yields the place of each line that is not blank, for messages, and its value.

    Raises:
        DataError: if the file or a line cannot be read; the message ends with `remedy`.
    """
    with _errors(path, "not readable", remedy), open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path} line {number}"
                with _errors(place, "not JSON", remedy):
                    value = _parse(line)
                yield place, value


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Opens a file, through gzip if its name ends in .gz; refuses what is no file, such as a pipe, which may block."""
    if not path.is_file():
        raise OSError("no such file" if not path.exists() else "not a regular file")
    return gzip.open(path) if path.name.endswith(".gz") else path.open("rb")


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow.parquet

    with open_bytes(path) as file:
        table = pyarrow.parquet.ParquetFile(file)
        _check_columns(path, columns, table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=64, columns=list(columns)):
            yield from batch.to_pylist()


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    found: dict[str, None] = {}  # an ordered set
    for place, row in _json_objects(path):
        if not isinstance(row, dict):
            raise DataError(f"{place} is not an object with columns: repair or remove it")
        found |= dict.fromkeys(row)
        yield {column: row.get(column) for column in columns}
    if found:
        _check_columns(path, columns, list(found))


def _json_objects(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields the objects of a file that is one list or, as a jsonl file is, one object a line."""
    if suffix(path).removesuffix(".gz") == ".json":
        with open_bytes(path) as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                file.seek(0)
                for index, value in enumerate(_parse(file.read())):
                    yield f"{path} entry {index}", value
                return
    yield from json_lines(path)


def _parse(text: bytes) -> Any:
    value = json.loads(text)
    if b"\\ud" in text.lower():  # an escaped surrogate without its pair is no character
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _check_columns(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    for column in columns:
        if column not in found:
            raise DataError(f"{path} has no column {column!r}: choose one of {', '.join(found)}")


@contextmanager
def _errors(where: object, problem: str, remedy: str = REMEDY) -> Iterator[None]:
    """Turns errors of reading, unpacking and parsing into one line."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error, RecursionError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            problem, reason = "not UTF-8 text", f"byte {error.start}: {error.reason}"
        raise DataError(f"{where} is {problem} ({reason}): {remedy}") from None
