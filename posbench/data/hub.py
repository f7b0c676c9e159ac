"""Data sets of the Hugging Face hub at a pinned commit, streamed up to a limit."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from posbench.config.data import DataSettings
from posbench.data.network import need_hub
from posbench.data.source import OFFLINE, Document, Source, column_name, column_text, digest
from posbench.errors import ConfigError, DataError


class Hub(Source):
    """The source `hub`: the documents of data.repository at data.revision."""

    def __init__(self, config: DataSettings) -> None:
        if not config.repository or not config.revision:
            raise ConfigError(
                f"data={config.name} needs data.repository and data.revision (a commit): set them"
            )
        self.config = config

    def fingerprint(self) -> str:
        """Returns a hash of the commit and the settings, without a download, because a commit never changes."""
        c = self.config
        columns = [c.text_column, c.name_column]
        amounts = [str(c.train_bytes), str(c.held_out), str(c.lines)]
        return digest([c.repository, c.subset, c.revision, *columns, *amounts])

    def documents(self, split: str) -> Iterator[Document]:
        """Yields the documents of a split; with data.held_out, test and validation are the first ones of train."""
        n = self.config.held_out
        if not n:
            documents = self.stream(split)
        elif split == "train":
            documents = islice(self.stream("train"), 2 * n, None)
        else:
            first = 0 if split == "test" else n
            documents = islice(self.stream("train"), first, first + n)
        yield from take_bytes(documents, self.config.train_bytes if split == "train" else 0)

    def stream(self, split: str) -> Iterator[Document]:
        """Yields all documents of a split of the data set."""
        c = self.config
        rows = stream_rows(c, split)
        if c.lines:
            yield from join_articles(column_text(row, c.text_column, c.repository) for row in rows)
            return
        for index, row in enumerate(rows):
            if text := column_text(row, c.text_column, c.repository):
                yield Document(column_name(row, c.name_column, c.repository, f"{split}:{index}"), text)


def stream_rows(config: DataSettings, split: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a data set as they are downloaded; raises DataError if that fails."""
    need_hub(f"data={config.name} ({config.repository})")

    import datasets

    try:
        yield from datasets.load_dataset(
            config.repository, config.subset or None, split=split, revision=config.revision, streaming=True
        )
    except Exception as error:  # httpx, aiohttp, fsspec, pyarrow and datasets raise errors of their own
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{config.repository}@{config.revision}: {reason}: try again, or choose {OFFLINE}"
        ) from None


def take_bytes(documents: Iterable[Document], limit: int) -> Iterator[Document]:
    """Yields documents until they have `limit` bytes of text; the last is whole, and 0 is no limit."""
    total = 0
    for document in documents:
        yield document
        total += len(document.text.encode("utf-8"))
        if limit and total >= limit:
            return


def join_articles(lines: Iterable[str]) -> Iterator[Document]:
    """Joins the lines of WikiText to articles: each begins with a line ` = Title = `; sections have more signs."""
    title, body = "", ""
    for line in lines:
        if heading := re.fullmatch(r" = ([^=].*?) = \n", line):
            if body.strip():
                yield Document(title, body)
            title, body = heading[1], ""
        body += line
    if body.strip():
        yield Document(title, body)
