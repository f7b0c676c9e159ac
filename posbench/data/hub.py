"""Data sets of the Hugging Face hub at a pinned commit, streamed: no more than a budget is downloaded."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from posbench.config.data import DataSettings
from posbench.data.network import need_hub
from posbench.data.source import OFFLINE, Document, cell, digest, text_cell
from posbench.errors import ConfigError, DataError


class Hub:
    def __init__(self, config: DataSettings) -> None:
        if not config.repository or not config.revision:
            raise ConfigError(
                f"data={config.name} needs data.repository and data.revision (a commit): set them"
            )
        self.config = config

    def fingerprint(self) -> str:
        """Of the pinned commit and what is taken from it: no download, because a commit never changes."""
        c = self.config
        columns = [c.text_column, c.name_column]
        amounts = [str(c.train_bytes), str(c.held_out), str(c.lines)]
        return digest([c.repository, c.subset, c.revision, *columns, *amounts])

    def documents(self, split: str) -> Iterator[Document]:
        """Where the data set has no splits of its own, the first documents of train are held out."""
        n = self.config.held_out
        if not n:
            documents = self.stream(split)
        elif split == "train":
            documents = islice(self.stream("train"), 2 * n, None)
        else:
            first = 0 if split == "test" else n
            documents = islice(self.stream("train"), first, first + n)
        yield from within(documents, self.config.train_bytes if split == "train" else 0)

    def stream(self, split: str) -> Iterator[Document]:
        c = self.config
        rows = download(c, split)
        if c.lines:
            yield from articles(text_cell(row, c.text_column, c.repository) for row in rows)
            return
        for index, row in enumerate(rows):
            if text := text_cell(row, c.text_column, c.repository):
                title = str(cell(row, c.name_column, c.repository)) if c.name_column else f"{split}:{index}"
                yield Document(title, text)


def download(config: DataSettings, split: str) -> Iterator[dict[str, Any]]:
    need_hub(f"data={config.name} ({config.repository})")

    import datasets

    try:
        yield from datasets.load_dataset(
            config.repository, config.subset or None, split=split, revision=config.revision, streaming=True
        )
    except Exception as error:  # httpx, aiohttp, fsspec, pyarrow and datasets each raise their own
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{config.repository}@{config.revision}: {reason}: try again, or choose {OFFLINE}"
        ) from None


def within(documents: Iterable[Document], budget: int) -> Iterator[Document]:
    """Whole documents until so many bytes are reached; 0 is no limit."""
    taken = 0
    for document in documents:
        yield document
        taken += len(document.text.encode("utf-8"))
        if budget and taken >= budget:
            return


def articles(lines: Iterable[str]) -> Iterator[Document]:
    """WikiText's articles: each begins with a line ` = Title = `, where sections have more signs."""
    title, body = "", ""
    for line in lines:
        if heading := re.fullmatch(r" = ([^=].*?) = \n", line):
            if body.strip():
                yield Document(title, body)
            title, body = heading[1], ""
        body += line
    if body.strip():
        yield Document(title, body)
