"""The source `files`: every kind of file gives the same documents, and every mistake a one-line error."""

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posbench import checksums
from posbench.config.data import DataSettings
from posbench.data.corpus import fingerprint, open_corpus
from posbench.data.files import Files
from posbench.data.splits import SPLITS
from posbench.errors import ConfigError, DataError

BOOKS = Path(__file__).parents[3] / "shared" / "corpus" / "books"
ROWS = [{"title": f"title {n}", "body": f"text {n}: naïve\r\n日本語", "year": 1900 + n} for n in range(8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tables[1]"  # a name that reads as a glob
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "rows.json").write_text(json.dumps(ROWS))
    return folder


def settings(path: object, **changes: str) -> DataSettings:
    return replace(DataSettings(source="files", path=str(path), text_column="body"), **changes)


def pairs(config: DataSettings) -> list[tuple[str, str]]:
    """Name and text of every document of all splits."""
    return [pair for documents in documents_of(config).values() for pair in documents]


def documents_of(config: DataSettings) -> dict[str, list[tuple[str, str]]]:
    source = Files(config)
    return {split: [tuple(document) for document in source.documents(split)] for split in SPLITS}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
def test_tables_are_read_by_column(folder: Path, suffix: str) -> None:
    config = settings(folder / f"rows.{suffix}", name_column="title")
    assert sorted(pairs(config)) == [(row["title"], row["body"]) for row in ROWS]
    assert all(documents_of(config).values())


def test_rows_without_a_name_are_named_by_file_and_index(folder: Path) -> None:
    assert sorted(dict(pairs(settings(folder / "rows.jsonl")))) == [f"rows.jsonl:{n}" for n in range(8)]


def test_text_files_keep_every_byte(tmp_path: Path) -> None:
    contents = {f"{n}.txt": f"line {n}\r\nend \r {n}\n\n" for n in range(4)}
    for name, text in contents.items():
        (tmp_path / name).write_bytes(text.encode())
    assert dict(pairs(settings(tmp_path))) == {f"{name}:0": text for name, text in contents.items()}


def test_a_folder_and_a_glob_are_the_same_corpus(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / "deep" / str(n)).mkdir(parents=True)
        (tmp_path / "deep" / str(n) / "file.txt").write_text(f"text {n}")
    assert fingerprint(settings(tmp_path / "deep")) == fingerprint(settings(f"{tmp_path}/deep/**/*.txt"))


def test_rows_of_one_name_are_in_one_split(tmp_path: Path) -> None:
    lines = [json.dumps({"book": f"book {n % 5}", "body": f"part {n}"}) for n in range(40)]
    (tmp_path / "parts.jsonl").write_text("\n".join(lines))
    found = documents_of(settings(tmp_path, name_column="book"))
    names = {split: {name for name, _ in rows} for split, rows in found.items()}
    assert sum(map(len, names.values())) == 5 == len(set().union(*names.values()))


@pytest.mark.parametrize("missing", [None, ""])
def test_a_row_without_its_name_is_named_by_file_and_index(tmp_path: Path, missing: str | None) -> None:
    """Fault: all rows whose name was null were one document's, called "None", and in one split."""
    rows = [{"book": missing if n % 2 else 0, "body": f"part {n}"} for n in range(6)]
    (tmp_path / "parts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = {name for name, _ in pairs(settings(tmp_path, name_column="book"))}
    assert named == {"0", "parts.jsonl:1", "parts.jsonl:3", "parts.jsonl:5"}


def test_a_file_that_repeats_another_is_left_out(tmp_path: Path) -> None:
    """Fault: a file and a link to it were in train and in test. The corpus is that without the link."""
    for n in range(20):
        (tmp_path / f"{n:02}.txt").write_text(f"text {n}")
    alone = fingerprint(settings(tmp_path)), pairs(settings(tmp_path))
    for n in range(20):
        (tmp_path / f"x{n:02}.txt").symlink_to(tmp_path / f"{n:02}.txt")
    assert (fingerprint(settings(tmp_path)), pairs(settings(tmp_path))) == alone
    (note,) = Files(settings(tmp_path)).notes
    assert note.startswith(f"left out 20 files that repeat another: {tmp_path}/x00.txt, ")


def test_a_row_that_train_has_is_not_held_out(tmp_path: Path) -> None:
    """Fault: equal rows were in train and in test, without a note."""
    lines = [json.dumps({"body": f"text {n % 160}"}) for n in range(240)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    found = {split: {text for _, text in rows} for split, rows in documents_of(settings(path)).items()}
    assert found["train"].isdisjoint(found["validation"] | found["test"])
    said: list[str] = []
    open_corpus(settings(path), tmp_path / "cache", said.append)
    assert [line.split(" ", 3)[3] for line in said if "in train" in line] == [
        f"documents of {split} whose text is in train" for split in ("validation", "test")
    ]


@pytest.mark.parametrize("change", ["another text", "a new row"])
def test_text_that_changes_while_it_is_read(tmp_path: Path, change: str) -> None:
    """Fault: the corpus of a text that had changed was stored under the fingerprint of the old one."""
    (tmp_path / "texts").mkdir()
    path = tmp_path / "texts" / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"body": f"text {n}"}) for n in range(40)))

    def say(line: str) -> None:
        if line.startswith("train"):
            text = path.read_text()
            path.write_text(
                text.replace("text 0", "other") if change == "another text" else text + '\n{"body": "x"}'
            )

    expected = {
        "another text": "changed while it was read: leave it",
        "a new row": "'rows.jsonl:40' of data.path is new",
    }
    with pytest.raises(DataError, match=expected[change]) as caught:
        open_corpus(settings(path), tmp_path / "cache", say)
    assert "\n" not in str(caught.value)
    assert not [one for one in (tmp_path / "cache").iterdir() if one.is_dir()]


def test_files_are_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: planning hashed the user's files twice for every model."""
    hashed: list[Path] = []
    digest = checksums._file_digest.__wrapped__
    cached = functools.lru_cache(lambda path, *state: (hashed.append(path), digest(path, *state))[1])
    monkeypatch.setattr(checksums, "_file_digest", cached)
    monkeypatch.setattr(checksums.time, "time", lambda: 2e9)  # long after the files were written
    assert len({fingerprint(settings(folder)) for _ in range(3)}) == 1
    assert sorted(hashed) == sorted(folder.iterdir())


def test_other_columns_are_another_corpus(folder: Path) -> None:
    config = settings(folder / "rows.parquet")
    assert fingerprint(config) != fingerprint(replace(config, text_column="title"))
    assert fingerprint(config) != fingerprint(replace(config, name_column="title"))


def opened(config: DataSettings) -> None:
    fingerprint(config)
    documents_of(config)


def fails(config: DataSettings, match: str, error: type[Exception] = DataError) -> None:
    with pytest.raises(error, match=match) as caught:
        opened(config)
    assert "\n" not in str(caught.value)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    fails(settings(tmp_path / "none"), r"no file at .*none: give a file, a folder or a glob")
    fails(settings(tmp_path), r"folder .* holds no file that ends in \.parquet, \.jsonl, \.json, \.txt")
    fails(settings(f"{tmp_path}/*.txt"), r"no file at .*\*\.txt")


def test_an_empty_file_is_named(folder: Path) -> None:
    for nothing in ("", "\n", "{}\n", '{"body": null}\n{"body": ""}\n'):
        (folder / "rows.jsonl").write_text(nothing)
        fails(settings(folder / "rows.jsonl"), r"rows\.jsonl (holds no text in|has no column) 'body'")
    (folder / "empty.txt").write_text("")
    fails(settings(folder / "empty.txt"), r"empty\.txt holds no text")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
def test_the_error_for_a_wrong_column_has_the_columns(folder: Path, suffix: str) -> None:
    path = folder / f"rows.{suffix}"
    fails(settings(path, text_column="text"), r"no column 'text': choose one of title, body, year")
    fails(settings(path, name_column="id"), r"no column 'id': choose one of title, body, year")
    fails(settings(path, text_column="year"), r"column 'year' holds int, not text")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json", "txt"])
def test_a_malformed_file_is_named(folder: Path, suffix: str) -> None:
    path = folder / f"broken.{suffix}"
    path.write_bytes(b"\xff\xfenot this\x00")
    fails(settings(path), rf"broken\.{suffix}( line 1)? is not .*: repair or remove it")


def test_the_error_is_the_only_line(folder: Path) -> None:
    """In another process, because pytest does not capture the log of `datasets`."""
    (folder / "broken.jsonl").write_text("no json")
    program = f"""
import sys
from posbench.config.data import DataSettings
from posbench.data.files import Files
from posbench.errors import DataError
try:
    list(Files(DataSettings(path={str(folder / "broken.jsonl")!r})).documents("test"))
except DataError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_other_kinds_of_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    fails(settings(tmp_path / "a.pdf"), r"a\.pdf is not one of \.parquet")


def test_two_documents_cannot_fill_three_splits(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    fails(settings(tmp_path), r"holds 2 documents, and each of train, validation, test needs one")


def test_settings_that_contradict_each_other(folder: Path) -> None:
    path = str(folder / "rows.parquet")
    both = dict.fromkeys(SPLITS, path)
    fails(settings(""), r"data\.path=''.*no split: set data\.path", ConfigError)
    fails(replace(settings(path), paths=both), r"set data\.path, .* or data\.paths", ConfigError)
    fails(replace(settings(""), paths={"train": path}), r"data\.paths for train: set", ConfigError)
    fails(replace(settings(""), paths=both | {"valid": path}), r"did you mean 'validation'", ConfigError)
    fails(replace(settings(""), paths=dict.fromkeys(SPLITS, "")), r"no split: set data\.path", ConfigError)
    fails(replace(settings(""), paths=both), r"rows\.parquet is in train and in validation")


@pytest.mark.skipif(not BOOKS.is_dir(), reason=f"the sample of books is not at {BOOKS}")
def test_books_open(tmp_path: Path) -> None:
    held_out = pq.read_table(BOOKS / "valid.parquet")  # a book each; the train split takes seconds
    for n, split in enumerate(("train", "validation")):
        pq.write_table(held_out.slice(n, 1), tmp_path / f"{split}.parquet")
    paths = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "validation")}
    paths["test"] = str(BOOKS / "test.parquet")
    config = DataSettings(source="files", paths=paths, name_column="title")
    test = open_corpus(config, tmp_path / "cache", lambda line: None).split("test")
    assert "The Origin Of Species" in test.names
    assert len(test.at_least(2**19)) == len(test) == 4


def test_rows_without_text_are_counted(tmp_path):
    """Fault: 60 of 100 rows, whose text had another name, were left out without a line."""
    rows = [{"body": f"text {index}"} if index % 5 < 2 else {"content": "x"} for index in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines: list[str] = []
    open_corpus(settings(tmp_path / "rows.jsonl"), tmp_path / "cache", lines.append)
    assert any("left out 60 rows" in line and "without text in 'body'" in line for line in lines)


def test_a_split_that_repeats_train_says_so(tmp_path):
    """Fault: the error was that the validation split has no documents, without the reason."""
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps({'body': 'same'})}\n" for _ in range(40)))
    with pytest.raises(DataError, match=r"has no documents .*whose text is in train"):
        open_corpus(settings(tmp_path / "rows.jsonl"), tmp_path / "cache", lambda line: None)
