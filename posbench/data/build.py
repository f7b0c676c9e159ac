"""Builds a corpus folder whole or not at all, once, however many processes ask for it."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from posbench.data import shard
from posbench.data.source import Document, Source
from posbench.data.splits import SPLITS
from posbench.data.tokenizer import Tokenizer
from posbench.errors import DataError
from posbench.files import atomic_path

META = "meta.json"  # written last: a folder that has it was finished

Say = Callable[[str], None]


def aloud(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ensure(
    folder: Path, parts: Callable[[], tuple[Source, Tokenizer]], say: Say = aloud, bos: int | None = None
) -> None:
    """Makes the folder unless it is there and whole; only then are the text and its packages looked at.

    A kill at any point leaves at most a folder called *.partial, which the next build replaces.
    """
    if folder.exists() and damage(folder) is None:
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if folder.exists() and (wrong := damage(folder)):
                aside = set_aside(folder)
                say(f"{folder}: {wrong}; it is set aside as {aside.name} and built again")
            if not folder.exists():
                say(f"building the corpus {folder}")
                with atomic_path(folder, folder.with_suffix(".partial")) as partial:
                    partial.mkdir()
                    fill(partial, *parts(), say, bos)
    except OSError as error:
        raise DataError(
            f"{folder.parent} cannot be written ({error.strerror}): choose another cache folder"
        ) from None


def read_meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / META).read_text("utf-8"))


def damage(folder: Path) -> str | None:
    """What is wrong with a corpus folder; None where every file has the size that it was written with."""
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
    names = (folder.with_suffix(f".damaged-{n}") for n in itertools.count(1))
    return folder.rename(next(name for name in names if not name.exists()))


def fill(folder: Path, source: Source, tokenizer: Tokenizer, say: Say, bos: int | None) -> None:
    """Documents begin with `bos`, by default the first id that the tokenizer does not use."""
    tokenizer.save(folder)
    left_out: list[str] = []
    for split in SPLITS:
        ids = tokenized(source, tokenizer, split, left_out)
        documents, tokens = shard.write(
            folder, split, ids, tokenizer.vocab_size if bos is None else bos, tokenizer.vocab_size
        )
        if not documents:
            raise DataError(f"the {split} split has no documents: give it some, or choose another data=")
        say(f"{split}: {tokens:,} tokens in {documents:,} documents")
    if left_out:
        say(f"left out, because {tokenizer.name} does not give them back exactly: {', '.join(left_out)}")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    meta = {"tokenizer": tokenizer.name, "left_out": left_out, "sizes": sizes}
    (folder / META).write_text(json.dumps(meta, indent=1), "utf-8")


def tokenized(
    source: Source, tokenizer: Tokenizer, split: str, left_out: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each document's ids, but of those that the tokenizer alters: their bits per byte would be wrong."""
    for documents in batches(shown(source.documents(split), f"tokenizing {split}")):
        encoded = tokenizer.encode_all([document.text for document in documents])
        for (name, text), ids in zip(documents, encoded, strict=True):
            if tokenizer.decode(ids) == text:
                yield name, ids
            else:
                left_out.append(name)


def batches(documents: Iterable[Document], characters: int = 4_000_000) -> Iterator[list[Document]]:
    """Consecutive documents, enough of them to keep every core busy."""
    batch: list[Document] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += len(document.text)
        if held >= characters:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def shown(documents: Iterable[Document], what: str) -> Iterator[Document]:
    """The documents; on a terminal, a line tells how far they are."""
    console = Console(stderr=True)
    style = "{task.description}: {task.completed:.1f} million characters"
    columns = SpinnerColumn(), TextColumn(style), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        for document in documents:
            yield document
            bar.advance(task, len(document.text) / 1e6)
