"""The Python standard library's sources, without its tests: text that needs nothing installed.

They differ between patch releases of Python, so the fingerprint tells apart corpora of two machines.
"""

import os
import sysconfig
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from posbench.config.data import DataSettings
from posbench.data.source import Document, digest
from posbench.data.splits import split_by_hash
from posbench.errors import DataError

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


class StandardLibrary:
    def __init__(self, config: DataSettings) -> None:
        self.root = Path(sysconfig.get_paths()["stdlib"])

    @cached_property
    def texts(self) -> dict[str, str]:
        """Every module's text by its path, in order; read once, 11 MB."""
        texts = {}
        for path in modules(self.root):
            try:
                texts[path.relative_to(self.root).as_posix()] = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue  # a few declare an older encoding
        if not texts:
            raise DataError(f"{self.root} holds no Python sources: choose data=sources or data=files")
        return texts

    @cached_property
    def split_of(self) -> dict[str, str]:
        return split_by_hash(self.texts)

    def fingerprint(self) -> str:
        return digest(part for name, text in self.texts.items() for part in (self.split_of[name], name, text))

    def documents(self, split: str) -> Iterator[Document]:
        for name, text in self.texts.items():
            if text and self.split_of[name] == split:
                yield Document(name, text)


def modules(root: Path) -> list[Path]:
    """Every module below the root that is written by hand."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = set(folders) - SKIPPED  # os.walk then stays out of them
        found += [
            Path(folder, name)
            for name in files
            if name.endswith(".py") and not name.startswith("_sysconfigdata")  # written by Python's build
        ]
    return sorted(found)
