"""Text of the user: files, folders or globs of parquet, jsonl, json or txt, split by hash or by path.

A split by hash never puts equal texts in train and in another split. A file with the same bytes as an earlier file is left
out, and the fingerprint is that of the corpus without it. When the corpus is built, documents of validation and test whose
text is also in train are left out, and a printed line counts them. Splits by path are taken as they are, except that equal
files in two splits are refused.
"""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from posbench import checksums
from posbench.config.data import DataSettings
from posbench.data import table
from posbench.data.source import Document, Source, column_name, column_text, digest
from posbench.data.splits import SPLITS, split_by_hash
from posbench.errors import ConfigError, DataError, unknown

ANY = "any"  # in place of a split, for documents that are split by hash
SUFFIXES = ", ".join(table.SUFFIXES)


class Files(Source):
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
        skipped: list[Path] = []
        self.notes: list[str] = []
        self.files = {split: expand(path, skipped) for split, path in paths.items()}
        if skipped:
            self.notes.append(f"left out {len(skipped)} files that are not {SUFFIXES}: {few(skipped)}")
        if ANY in self.files:
            first = {sha256(path): name for name, path in reversed(self.files[ANY].items())}
            repeats = [self.files[ANY].pop(name) for name in self.files[ANY].keys() - first.values()]
            if repeats:
                self.notes.append(
                    f"left out {len(repeats)} files that repeat another: {few(sorted(repeats))}"
                )

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
            return
        repeats = 0
        for document in self.read(ANY):
            if document.name not in self.split_of:
                raise DataError(f"document {document.name!r} of data.path is new: run the same command again")
            if self.split_of[document.name] != split:
                continue
            if split != "train" and text_hash(document) in self.train_texts:
                repeats += 1
            else:
                yield document
        if repeats:
            self.notes.append(f"left out {repeats} documents of {split} whose text is in train")

    @cached_property
    def train_texts(self) -> set[bytes]:
        """Hashes of the texts of the train split."""
        return set(map(text_hash, self.documents("train")))

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
        columns = list(dict.fromkeys(filter(None, (self.text_column, self.name_column))))
        for name, path in self.files[group].items():
            n_empty, n_texts = 0, 0
            # A txt file has text alone.
            name_column = "" if table.suffix(path).startswith(".txt") else self.name_column
            for index, row in enumerate(table.rows(path, columns)):
                if text := column_text(row, self.text_column, path):
                    yield Document(column_name(row, name_column, path, f"{name}:{index}"), text)
                    n_texts += 1
                else:
                    n_empty += 1
            if not n_texts:
                raise DataError(f"{path} holds no text in {self.text_column!r}: fill or remove it")
            note = f"left out {n_empty} rows of {path} without text in {self.text_column!r}"
            if n_empty and note not in self.notes:
                self.notes.append(note)


def expand(path: str, skipped: list[Path]) -> dict[str, Path]:
    """Returns the files at a path, sorted, by their names relative to the folder that they share.

    Args:
        skipped: receives the entries of a folder that are left out.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        every = list(walk(given))
        found = [file for file in every if table.suffix(file) and file.is_file()]
        skipped += sorted(set(every) - set(found))
        if not found:
            raise DataError(f"folder {path} holds no file that ends in {SUFFIXES}: choose another")
    else:
        matches = [given] if given.is_file() else map(Path, glob.glob(str(given), recursive=True))
        found = [file for file in matches if file.is_file()]
        if not found:
            raise DataError(f"no file at {path}: give a file, a folder or a glob that ends in {SUFFIXES}")
    for file in found:
        if not table.suffix(file):
            raise DataError(f"{file} is not one of {SUFFIXES}: convert it, or name a folder of such files")
    shared = os.path.commonpath([file.parent for file in found])
    return {printable(file.relative_to(shared)): file for file in sorted(found)}


def walk(folder: Path) -> Iterator[Path]:
    """Yields everything below a folder but folders; follows links, and enters each folder once."""
    entered = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(parent)) in entered:
            folders.clear()  # in place, so that os.walk enters none
        else:
            entered.add(real)
            yield from (Path(parent, name) for name in files)


def printable(path: Path) -> str:
    """Returns a path as text, with the bytes of a name that is not UTF-8 as escapes."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def few(paths: Sequence[Path]) -> str:
    """Returns the first five paths as text."""
    return ", ".join(map(printable, paths[:5])) + (", ..." if len(paths) > 5 else "")


def text_hash(document: Document) -> bytes:
    """Returns a hash of the text of a document."""
    return hashlib.sha256(document.text.encode()).digest()


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file; raises DataError if it cannot be read."""
    try:
        return checksums.file_digest(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): make it readable, or choose another"
        ) from None
