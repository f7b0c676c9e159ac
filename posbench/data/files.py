"""Text of the user: files, folders or globs of parquet, jsonl, json or txt, split by hash or by path."""

import glob
import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from posbench.config.data import DataSettings
from posbench.data.source import Document, column_text, column_value, digest
from posbench.data.splits import SPLITS, split_by_hash
from posbench.errors import ConfigError, DataError, unknown

ANY = "any"  # in place of a split, for documents that are split by hash
LOADERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text"}
SUFFIXES = ", ".join(LOADERS)


class Files:
    """The source `files`: the documents at data.path or data.paths."""

    def __init__(self, config: DataSettings) -> None:
        self.text_column, self.name_column = config.text_column, config.name_column
        given = {split: path for split, path in config.paths.items() if path}
        paths = given or {ANY: config.path}
        for split in paths:
            if split not in (*SPLITS, ANY):
                raise unknown("split in data.paths", split, SPLITS)
        if bool(config.path) == bool(given) or set(paths) not in ({ANY}, set(SPLITS)):
            splits = ", ".join(given) or "no split"
            raise ConfigError(
                f"data=files got data.path={config.path!r} and data.paths for {splits}: set data.path, "
                f"to split by hash, or data.paths for each of {', '.join(SPLITS)}"
            )
        self.files = {split: expand(path) for split, path in paths.items()}

    def fingerprint(self) -> str:
        """Returns a hash of the bytes and names of the files, which does not depend on the place of their folder."""
        parts, seen = [self.text_column, self.name_column], dict[str, str]()
        for split, files in self.files.items():
            for name, path in files.items():
                sha = sha256(path)
                if seen.setdefault(sha, split) != split:
                    raise DataError(f"{path} is in {seen[sha]} and in {split}: keep each text in one split")
                parts += [split, name, sha]
        return digest(parts)

    def documents(self, split: str) -> Iterator[Document]:
        if split in self.files:
            yield from self.read(split)
        else:
            yield from (document for document in self.read(ANY) if self.split_of[document.name] == split)

    @cached_property
    def split_of(self) -> dict[str, str]:
        """The split of each document name; documents of one name, such as parts of a book, are in one split."""
        names = dict.fromkeys(document.name for document in self.read(ANY))
        if len(names) < len(SPLITS):
            raise DataError(
                f"data.path holds {len(names)} documents, and each of {', '.join(SPLITS)} needs one: "
                "add some, or give each split its own data.paths"
            )
        return split_by_hash(names)

    def read(self, group: str) -> Iterator[Document]:
        """Reads the documents of a split, or of ANY; raises DataError for a file without text."""
        for name, path in self.files[group].items():
            empty = True
            for index, row in enumerate(rows(path, self.text_column)):
                if text := column_text(row, self.text_column, path):
                    title = (
                        str(column_value(row, self.name_column, path))
                        if self.name_column
                        else f"{name}:{index}"
                    )
                    yield Document(title, text)
                    empty = False
            if empty:
                raise DataError(f"{path} holds no text in {self.text_column!r}: fill or remove it")


def rows(path: Path, text_column: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file. A txt file is one row, read here because `datasets` would turn \\r\\n into \\n."""
    if path.suffix == ".txt":
        try:
            yield {text_column: path.read_bytes().decode("utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not UTF-8 text ({error}): convert or remove it") from None
        return

    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # its errors are reported below, in one line
    try:
        # Streaming copies nothing into a cache. The path is escaped because `datasets` reads every path as a glob.
        yield from datasets.load_dataset(
            LOADERS[path.suffix], data_files=glob.escape(str(path)), split="train", streaming=True
        )
    except StopIteration:  # raised for an empty file
        return
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(f"{path} is not readable {path.suffix[1:]} ({reason}): repair or remove it") from None


def expand(path: str) -> dict[str, Path]:
    """Returns the files at a path, sorted, by their names relative to the folder that they share."""
    given = Path(path).expanduser()
    if given.is_dir():
        found = [file for file in given.rglob("*") if file.suffix in LOADERS]
        if not found:
            raise DataError(f"folder {path} holds no file that ends in {SUFFIXES}: choose another")
    else:
        matches = [given] if given.is_file() else map(Path, glob.glob(str(given), recursive=True))
        found = [file for file in matches if file.is_file()]
        if not found:
            raise DataError(f"no file at {path}: give a file, a folder or a glob that ends in {SUFFIXES}")
    for file in found:
        if file.suffix not in LOADERS:
            raise DataError(f"{file} is not one of {SUFFIXES}: convert it, or name a folder of such files")
    shared = os.path.commonpath([file.parent for file in found])
    return {file.relative_to(shared).as_posix(): file for file in sorted(found)}


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file; raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): make it readable, or choose another"
        ) from None
