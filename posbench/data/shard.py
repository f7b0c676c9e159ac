"""The tokens of one split in one memory-mapped file, document after document, each with a bos in front."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Shard:
    split: str
    tokens: np.ndarray  # a memmap, uint16 where the ids fit
    starts: np.ndarray  # int64, one more than there are documents
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def document(self, index: int) -> np.ndarray:
        """Its tokens, the bos among them."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    @property
    def longest(self) -> int:
        return int(self.lengths.max())

    def at_least(self, length: int) -> np.ndarray:
        """The documents that hold so many tokens, in order."""
        return np.flatnonzero(self.lengths >= length)


def write(
    folder: Path, split: str, documents: Iterable[tuple[str, np.ndarray]], bos: int, largest: int = 0
) -> tuple[int, int]:
    """Writes documents as they come, so that a corpus may exceed memory; returns how many, and their tokens."""
    dtype = np.uint16 if max(bos, largest) <= np.iinfo(np.uint16).max else np.uint32
    starts, names = [0], []
    with (folder / f"{split}.bin").open("wb") as file:
        for name, ids in documents:
            np.concatenate([[bos], ids]).astype(dtype).tofile(file)
            starts.append(starts[-1] + 1 + len(ids))
            names.append(name)
    np.save(folder / f"{split}.starts.npy", np.array(starts, dtype=np.int64))
    (folder / f"{split}.names.json").write_text(json.dumps(names), "utf-8")
    return len(names), starts[-1]


def read(folder: Path, split: str) -> Shard:
    path = folder / f"{split}.bin"
    starts = np.load(folder / f"{split}.starts.npy")
    names = json.loads((folder / f"{split}.names.json").read_text("utf-8"))
    bytes_per_token = path.stat().st_size // int(starts[-1])
    return Shard(split, np.memmap(path, dtype=f"u{bytes_per_token}", mode="r"), starts, names)
