"""Shards: the tokens of a split in one memory-mapped file, document after document, each after a bos."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Shard:
    """The N tokens of the D documents of a split.

    Attributes:
        split: train, validation or test.
        tokens: (N,) ids, memory-mapped; uint16 if the ids fit, else uint32.
        starts: (D+1,) int64 offsets of the documents in `tokens`, and N.
        names: D names.
    """

    split: str
    tokens: np.ndarray
    starts: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def document(self, index: int) -> np.ndarray:
        """Returns the ids of a document, including its bos."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """(D,) tokens of each document, including its bos."""
        return np.diff(self.starts)

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return int(self.lengths.max())

    def at_least(self, length: int) -> np.ndarray:
        """Returns the indices of the documents with at least `length` tokens, ascending."""
        return np.flatnonzero(self.lengths >= length)


def write(
    folder: Path, split: str, documents: Iterable[tuple[str, np.ndarray]], bos: int, largest: int = 0
) -> tuple[int, int]:
    """Writes a split document by document, so that it can exceed memory; returns its documents and tokens.

    Args:
        documents: names and ids, without bos.
        largest: upper bound of the ids, which decides between uint16 and uint32.
    """
    dtype = np.uint16 if max(bos, largest) <= np.iinfo(np.uint16).max else np.uint32
    starts, names = [0], []
    with (folder / f"{split}.bin").open("wb") as file:
        for name, ids in documents:
            # Not tofile, whose error for a full disk does not say so.
            file.write(np.concatenate([[bos], ids]).astype(dtype).tobytes())
            starts.append(starts[-1] + 1 + len(ids))
            names.append(name)
    content = io.BytesIO()
    np.save(content, np.array(starts, dtype=np.int64))
    (folder / f"{split}.starts.npy").write_bytes(content.getvalue())
    (folder / f"{split}.names.json").write_text(json.dumps(names), "utf-8")
    return len(names), starts[-1]


def read(folder: Path, split: str) -> Shard:
    """Opens a split."""
    path = folder / f"{split}.bin"
    starts = np.load(folder / f"{split}.starts.npy")
    names = json.loads((folder / f"{split}.names.json").read_text("utf-8"))
    bytes_per_token = path.stat().st_size // int(starts[-1])
    return Shard(split, np.memmap(path, dtype=f"u{bytes_per_token}", mode="r"), starts, names)
