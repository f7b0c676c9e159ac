"""A folder of small texts and the settings that read it."""

from pathlib import Path

import pytest

from posbench.config.data import DataSettings

TEXTS = {
    "train": {
        "a.txt": "def f(x):\r\n\treturn x\n" * 9,
        "b.txt": "naïve 日本語 🙂 e\u0301\n" * 5,
        "c.txt": "short",
    },
    "validation": {"d.txt": "watch me\n" * 7},
    "test": {"e.txt": "ﬁnal ∑\n" * 11, "f.txt": "again"},
}


@pytest.fixture
def originals() -> dict[str, dict[str, str]]:
    """The texts by split and file name, in the order of the shards."""
    return TEXTS


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    for split, files in TEXTS.items():
        (folder / split).mkdir(parents=True)
        for name, text in files.items():
            (folder / split / name).write_bytes(text.encode("utf-8"))
    return folder


@pytest.fixture
def config(texts: Path) -> DataSettings:
    return DataSettings(name="small", source="files", paths={split: str(texts / split) for split in TEXTS})
