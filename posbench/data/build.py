"""Builds the folder of a corpus: complete or not at all, and once even if several processes need it."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from posbench import checksums
from posbench.data import shard
from posbench.data.source import Document, Source
from posbench.data.splits import SPLITS
from posbench.data.subword import FILE
from posbench.data.tokenizer import Bytes, Tokenizer
from posbench.errors import DataError
from posbench.files import Lock, atomic_path, raise_if_transient, set_aside, write_error

META = "meta.json"  # written last

Say = Callable[[str], None]


def print_to_stderr(line: str) -> None:
    """Prints a line at once."""
    print(line, file=sys.stderr, flush=True)


def ensure(
    folder: Path,
    make_parts: Callable[[], tuple[Source, Callable[[], Tokenizer]]],
    say: Say = print_to_stderr,
    bos: int | None = None,
) -> None:
    """Builds the folder unless it is complete.

    A process that is killed leaves at most a folder *.tmp, which a later build removes. A damaged folder is renamed and
    built again.

    Args:
        make_parts: returns the source and a function that makes the tokenizer; called only if the folder has to be built.
        say: called with each line for the user.
        bos: the id at the start of a document, by default the first id that the tokenizer does not use.

    Raises:
        ConfigError: if the folder cannot be written.
        DataError: if a split has no documents, or the text changes while it is read.
    """
    if folder.exists() and find_damage(folder) is None:
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Lock(folder.with_suffix(".lock")):
            if folder.exists() and (damage := find_damage(folder)):
                set_aside(folder, damage, say)
            if not folder.exists():
                say(f"building the corpus {folder}")
                with atomic_path(folder) as partial:
                    partial.mkdir()
                    source, make_tokenizer = make_parts()
                    before = source.fingerprint()
                    fill(partial, source, make_tokenizer(), say, bos)
                    if source.fingerprint() != before:
                        raise DataError(
                            "the text of the corpus changed while it was read: leave it as it is, and run the command again"
                        )
    except OSError as error:
        raise write_error(folder.parent, error) from None


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads the metadata of a corpus folder: the tokenizer's name, documents left out, sizes in bytes and checksums."""
    return checksums.read_json(folder / META)


def find_damage(folder: Path) -> str | None:
    """Returns what is wrong with a corpus folder, or None if every file is as it was written.

    Raises:
        DataError: if a file cannot be read at the moment.
    """
    try:
        meta = read_meta(folder)
        for name, size in meta["sizes"].items():
            path = folder / name
            found = path.stat().st_size if path.exists() else 0
            if found != size:
                return f"{name} has {found} bytes, not {size}"
        checksums.verify_listed(folder, meta.get("sha256", {}))
        if meta["tokenizer"] != Bytes.name and FILE not in meta["sizes"]:
            return f"{META} names the tokenizer {meta['tokenizer']!r}, whose {FILE} is missing"
    except checksums.DamageError as error:
        return str(error)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise_if_transient(folder, error)
        return f"{META} is missing or unreadable"
    return None


def fill(folder: Path, source: Source, tokenizer: Tokenizer, say: Say, bos: int | None) -> None:
    """Writes the tokenizer, the splits and the metadata of a corpus; arguments as of `ensure`."""
    tokenizer.save(folder)
    for line in source.notes:
        say(line)
    n_notes = len(source.notes)
    left_out: list[str] = []
    for split in SPLITS:
        ids = tokenize(source, tokenizer, split, left_out)
        documents, tokens = shard.write(
            folder, split, ids, tokenizer.vocab_size if bos is None else bos, tokenizer.vocab_size
        )
        if not documents:
            reasons = [
                *source.notes[n_notes:],
                *(["texts that its tokenizer does not decode"] if left_out else []),
            ]
            why = f" ({'; '.join(reasons)})" if reasons else ""
            raise DataError(f"the {split} split has no documents{why}: give it some, or choose another data=")
        say(f"{split}: {tokens:,} tokens in {documents:,} documents")
    for line in source.notes[n_notes:]:
        say(line)
    if left_out:
        say(
            f"left out, because {tokenizer.name} does not decode them to the same text: {', '.join(left_out)}"
        )
    files = sorted(folder.iterdir())
    sizes = {path.name: path.stat().st_size for path in files}
    digests = {path.name: checksums.file_digest(path) for path in files}
    meta = {"tokenizer": tokenizer.name, "left_out": left_out, "sizes": sizes, "sha256": digests}
    (folder / META).write_bytes(checksums.dump_json(meta))


def tokenize(
    source: Source, tokenizer: Tokenizer, split: str, left_out: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and the ids of each document.

    Documents that do not decode to the same text, whose bits per byte would be wrong, are appended to `left_out`.
    """
    for documents in batches(show_progress(source.documents(split), f"tokenizing {split}")):
        encoded = tokenizer.encode_all([document.text for document in documents])
        for (name, text), ids in zip(documents, encoded, strict=True):
            if tokenizer.decode(ids) == text:
                yield name, ids
            else:
                left_out.append(name)


def batches(documents: Iterable[Document], characters: int = 4_000_000) -> Iterator[list[Document]]:
    """Yields lists of consecutive documents, long enough to keep every core busy."""
    batch: list[Document] = []
    batch_characters = 0
    for document in documents:
        batch.append(document)
        batch_characters += len(document.text)
        if batch_characters >= characters:
            yield batch
            batch, batch_characters = [], 0
    if batch:
        yield batch


def show_progress(documents: Iterable[Document], description: str) -> Iterator[Document]:
    """Yields the documents and shows their number of characters on a terminal."""
    console = Console(stderr=True)
    style = "{task.description}: {task.completed:.1f} million characters"
    columns = SpinnerColumn(), TextColumn(style), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        for document in documents:
            yield document
            bar.advance(task, len(document.text) / 1e6)
