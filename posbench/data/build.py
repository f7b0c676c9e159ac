"""Builds the folder of a corpus: complete or not at all, and once even if several processes need it."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from posbench.data import shard
from posbench.data.source import Document, Source
from posbench.data.splits import SPLITS
from posbench.data.tokenizer import Tokenizer
from posbench.errors import DataError
from posbench.files import Lock, atomic_path

META = "meta.json"  # written last

Say = Callable[[str], None]


def print_to_stderr(line: str) -> None:
    """Prints a line at once."""
    print(line, file=sys.stderr, flush=True)


def ensure(
    folder: Path,
    make_parts: Callable[[], tuple[Source, Tokenizer]],
    say: Say = print_to_stderr,
    bos: int | None = None,
) -> None:
    """Builds the folder unless it is complete.

    A process that is killed leaves at most a folder *.partial, which the next build replaces. A damaged folder is
    renamed and built again.

    Args:
        make_parts: returns the source and the tokenizer; called only if the folder has to be built.
        say: called with each line for the user.
        bos: the id at the start of a document, by default the first id that the tokenizer does not use.

    Raises:
        DataError: if the folder cannot be written, or a split has no documents.
    """
    if folder.exists() and find_damage(folder) is None:
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Lock(folder.with_suffix(".lock")):
            if folder.exists() and (damage := find_damage(folder)):
                aside = set_aside(folder)
                say(f"{folder}: {damage}; it is set aside as {aside.name} and built again")
            if not folder.exists():
                say(f"building the corpus {folder}")
                with atomic_path(folder, folder.with_suffix(".partial")) as partial:
                    partial.mkdir()
                    fill(partial, *make_parts(), say, bos)
    except OSError as error:
        raise DataError(
            f"{folder.parent} cannot be written ({error.strerror or error}): free room there, or choose another "
            "runtime.cache_dir"
        ) from None


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads the metadata of a corpus folder: the tokenizer's name, documents left out, and file sizes in bytes."""
    return json.loads((folder / META).read_text("utf-8"))


def find_damage(folder: Path) -> str | None:
    """Returns what is wrong with a corpus folder, or None if every file has the size that it was written with."""
    try:
        sizes = read_meta(folder)["sizes"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{META} is missing or unreadable"
    for name, size in sizes.items():
        path = folder / name
        found = path.stat().st_size if path.exists() else 0
        if found != size:
            return f"{name} has {found} bytes, not {size}"
    return None


def set_aside(folder: Path) -> Path:
    """Renames a damaged folder to a free name *.damaged-N, which is returned."""
    names = (folder.with_suffix(f".damaged-{n}") for n in itertools.count(1))
    return folder.rename(next(name for name in names if not name.exists()))


def fill(folder: Path, source: Source, tokenizer: Tokenizer, say: Say, bos: int | None) -> None:
    """Writes the tokenizer, the splits and the metadata of a corpus; arguments as of `ensure`."""
    tokenizer.save(folder)
    for line in source.notes:
        say(line)
    left_out: list[str] = []
    for split in SPLITS:
        ids = tokenize(source, tokenizer, split, left_out)
        documents, tokens = shard.write(
            folder, split, ids, tokenizer.vocab_size if bos is None else bos, tokenizer.vocab_size
        )
        if not documents:
            raise DataError(f"the {split} split has no documents: give it some, or choose another data=")
        say(f"{split}: {tokens:,} tokens in {documents:,} documents")
    if left_out:
        say(
            f"left out, because {tokenizer.name} does not decode them to the same text: {', '.join(left_out)}"
        )
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    meta = {"tokenizer": tokenizer.name, "left_out": left_out, "sizes": sizes}
    (folder / META).write_text(json.dumps(meta, indent=1), "utf-8")


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
