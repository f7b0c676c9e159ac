"""Fault: text was read through the cache of `datasets`, which needs a writable HOME, waits for pipes and can crash."""

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from posbench.config.data import DataSettings, TokenizerSettings
from posbench.data import subword, table
from posbench.data.corpus import open_corpus
from posbench.data.files import Files
from posbench.errors import ConfigError, DataError
from posbench.tasks.passages import load_questions

ROWS = [{"text": f"text {n}", "other": {"deep": [n]}} for n in range(6)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def broken_gzip() -> bytes:
    packed = bytearray(gzip.compress(os.urandom(3000).hex().encode()))
    packed[100:130] = bytes(30)
    return bytes(packed)


BAD = {
    "surrogate.jsonl": b'{"text": "a \\ud800 b"}\n',
    "upper.jsonl": b'{"text": "a \\uDFFF b"}\n',
    "name.jsonl": b'{"text": "a", "\\ud800": 1}\n',
    "deep.jsonl": b'{"text": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}\n",
    "deep.json": b"[" * 1_000_000,
    "overwritten.jsonl.gz": broken_gzip(),
    "overwritten.txt.gz": broken_gzip(),
    "cut.jsonl.gz": gzip.compress(LINES)[:-20],
    "no.jsonl.gz": LINES,
    "latin.jsonl": b'{"text": "\xe9"}\n',
    "list.jsonl": b"[1, 2]\n",
    "text.jsonl": b'"text"\n',
    "number.jsonl": b'{"text": 3}\n',
    "column.jsonl": b'{"txt": "a"}\n',
    "digits.jsonl": b'{"text": ' + b"1" * 10_000 + b"}\n",
    "entries.json": b"[1, 2]",
    "empty.jsonl": b"",
    "empty.parquet": b"",
    "cut.parquet": b"PAR1 PAR1",
    "latin.txt": b"\xe9",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
        list(Files(DataSettings(path=str(path))).documents("train"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_questions(path)


@pytest.mark.parametrize("suffix", table.SUFFIXES)
def test_every_kind_gives_the_same_text(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.b{suffix}"
    contents = {".jsonl": LINES, ".json": json.dumps(ROWS).encode(), ".txt": b"text 0"}
    if suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        content = contents[suffix.removesuffix(".gz")]
        path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    found = list(table.rows(path, ["text"]))
    assert found == [{"text": row["text"]} for row in (ROWS[:1] if ".txt" in suffix else ROWS)]


def test_a_column_that_only_some_rows_have(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"x": 1}\n\n{"text": "a"}\n{"text": null}\n')
    assert [row["text"] for row in table.rows(tmp_path / "a.jsonl", ["text"])] == [None, "a", None]


def test_folders_are_read_through_links_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    texts, elsewhere = tmp_path / "texts", tmp_path / "elsewhere"
    (texts / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "linked.txt").write_text("linked")
    (texts / "folder").symlink_to(elsewhere)
    (texts / "sub" / "loop").symlink_to(texts)
    (texts / "a.jsonl").write_bytes(LINES)
    (texts / "b.jsonl.gz").write_bytes(gzip.compress(LINES.replace(b"text ", b"other text ")))
    (texts / "c.pdf").write_bytes(b"%PDF")
    os.mkfifo(texts / "pipe.txt")
    (texts / "gone.txt").symlink_to(tmp_path / "nothing")
    with open(os.fsencode(texts) + b"/latin-\xe9.txt", "w") as file:
        file.write("named in latin-1")
    source = Files(DataSettings(path=str(texts)))
    assert list(source.files["any"]) == ["a.jsonl", "b.jsonl.gz", "folder/linked.txt", "latin-\\xe9.txt"]
    assert source.fingerprint()
    lines: list[str] = []
    corpus = open_corpus(DataSettings(source="files", path=str(texts)), tmp_path / "cache", lines.append)
    (note,) = (line for line in lines if line.startswith("left out"))
    assert note.startswith("left out 3 files that are not .parquet, ")
    assert [name in note for name in ("c.pdf", "pipe.txt", "gone.txt")] == [True] * 3
    assert sum(len(corpus.split(split)) for split in ("train", "validation", "test")) == 14


@pytest.mark.parametrize(
    "read", [load_questions, subword.open_file, lambda path: list(table.rows(path, ["text"]))]
)
def test_a_pipe_is_not_waited_for(read, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="not a regular file"):
        read(tmp_path / "pipe.json")


def test_a_pipe_as_the_only_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe as data.path was waited for without end."""
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"no file at .*pipe\.txt"):
        Files(DataSettings(path=str(tmp_path / "pipe.txt")))


def test_text_is_read_without_a_home(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    program = (
        "import sys; from posbench.config.data import DataSettings; from posbench.data.files import Files\n"
        f"print(len(list(Files(DataSettings(path={str(tmp_path / 'a.jsonl')!r})).documents('train'))) > 0)\n"
        "print('datasets' in sys.modules)"
    )
    variables = os.environ | {"HOME": "/proc/none", "HF_HOME": "/proc/none"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\nFalse\n", "")


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_corpus_without_room_says_why(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(b'{"text": "%d %s"}\n' % (n, b"x" * 9000) for n in range(40)))
    tokenizer = TokenizerSettings(kind, vocab_size=300)
    settings = DataSettings(source="files", path=str(tmp_path / "a.jsonl"), tokenizer=tokenizer)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot be written \(File too large\): make room"):
            open_corpus(settings, tmp_path / "cache", lambda line: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "cache").glob(".*.tmp"))
