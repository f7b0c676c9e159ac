"""The store: complete files with reproducible bytes; broken and outdated files are set aside."""

import json
import logging
import time

import pandas as pd
import pyarrow.parquet as pq
import pytest

from posbench.errors import ConfigError, DataError
from posbench.results.rows import COLUMNS, RowStore, read_rows, write_rows


@pytest.fixture
def some(rows):
    """Rows as dictionaries, with None for missing values, as evaluations return them."""
    part = rows[rows["scheme"] == "learned"].head(200).astype(object)
    return part.where(part.notna(), None).to_dict("records")


def test_rows_round_trip(tmp_path, some):
    store = RowStore(tmp_path / "cells")
    assert not store.has("abc")
    store.write("abc", some, {"seconds": 1.5, "date": "2026-01-01"})
    assert store.has("abc")
    back = store.read("abc")
    assert tuple(back.columns) == COLUMNS
    assert str(back["position"].dtype) == "Int64"
    for column in COLUMNS:
        wanted = pd.Series([row[column] for row in some], dtype=back[column].dtype, name=column)
        pd.testing.assert_series_equal(back[column], wanted)
    assert json.loads((tmp_path / "cells" / "abc.json").read_text())["seconds"] == 1.5


def test_bytes_depend_only_on_rows(tmp_path, some):
    for name, when in (("one", 1), ("two", 2)):
        RowStore(tmp_path / name).write("abc", some, {"date": when})
    first, second = ((tmp_path / name / "abc.parquet").read_bytes() for name in ("one", "two"))
    assert first == second
    assert not list(tmp_path.rglob("*.tmp"))


OLD_COLUMNS = {
    "cell_id": "cell",
    "model_id": "model",
    "model_size": "size",
    "doc_id": "document",
    "value_sum": "value",
}


def as_version(version, path):
    """Rewrites a file under an older schema: old column names, and in version 1 no layer and head."""
    table = pq.read_table(path)
    table = table.drop_columns(["layer", "head"]) if version == "1" else table
    table = table.rename_columns([OLD_COLUMNS.get(name, name) for name in table.column_names])
    pq.write_table(table.replace_schema_metadata({"posbench.rows": version}), path)


@pytest.mark.parametrize("version", ["1", "2"])
def test_old_versions_are_read_without_layers_and_heads(tmp_path, some, version, caplog):
    store = RowStore(tmp_path)
    for cell in ("old", "new"):
        store.write(cell, [row | {"cell_id": cell} for row in some], {})
    before = store.read("old")
    as_version(version, store.path("old"))
    with caplog.at_level(logging.WARNING):
        assert store.has("old")
        pd.testing.assert_frame_equal(store.read("old"), before)
        both, counts = store.collect(["old", "new"])
    assert not caplog.messages
    assert both["layer"].isna().all()
    assert str(both["head"].dtype) == "Int64"
    assert list(both["cell_id"].unique()) == ["old", "new"]
    assert sum(counts) == len(both)


def test_old_values_are_renamed(tmp_path, some):
    store = RowStore(tmp_path)
    old = {"protocol": "records", "metric": "hit", "unit": "share", "task": "adjacent"}
    store.write("old", [some[0] | old, some[1]], {})
    as_version("2", store.path("old"))
    new = {"protocol": "synthetic_records", "metric": "token_accuracy", "unit": "fraction"}
    new |= {"task": "position_resolution"}
    back = store.read("old")
    assert back.loc[0, list(new)].to_dict() == new
    assert back.loc[1, list(new)].to_dict() == {name: some[1][name] for name in new}


def test_layers_and_heads_are_read_as_integers(tmp_path, some):
    write_rows(pd.DataFrame([some[0] | {"layer": 2, "head": 1}, some[1]]), tmp_path / "rows.parquet")
    back = read_rows(tmp_path / "rows.parquet")
    assert back["layer"].tolist() == [2, pd.NA]
    assert back["head"].tolist() == [1, pd.NA]


def test_collect_keeps_the_order_of_cells(tmp_path, some):
    store = RowStore(tmp_path)
    for cell in ("b", "a"):
        store.write(cell, [row | {"cell_id": cell} for row in some], {})
    collected, counts = store.collect(["b", "a"])
    pd.testing.assert_frame_equal(collected, pd.concat(map(store.read, ["b", "a"]), ignore_index=True))
    assert counts == [len(some)] * 2
    assert store.collect([])[0].empty


def test_collected_rows_round_trip(tmp_path, rows):
    write_rows(rows, tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(read_rows(tmp_path / "rows.parquet"), rows, check_dtype=False)


def test_strings_can_be_read_as_sorted_categories(tmp_path, rows):
    write_rows(rows, tmp_path / "rows.parquet")
    plain = read_rows(tmp_path / "rows.parquet")
    categorical = read_rows(tmp_path / "rows.parquet", categorical=True)
    strings = dict.fromkeys(plain.select_dtypes("str"), "category")
    pd.testing.assert_frame_equal(categorical, plain.astype(strings))


@pytest.mark.parametrize("damage", ["truncated", "empty", "other version", "not parquet"])
def test_broken_cell_is_set_aside(tmp_path, some, damage, caplog):
    store = RowStore(tmp_path)
    store.write("abc", some, {})
    path = store.path("abc")
    whole = path.read_bytes()
    if damage == "other version":
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({"posbench.rows": "0"}), path)
    else:
        path.write_bytes(
            {"truncated": whole[: len(whole) // 2], "empty": b"", "not parquet": b"x" * 500}[damage]
        )
    with caplog.at_level(logging.WARNING):
        assert not store.has("abc")
    assert len(caplog.messages) == 1
    assert "\n" not in caplog.messages[0]
    assert not path.exists()
    assert path.with_name("abc.parquet.damaged-1").exists()
    store.write("abc", some, {})
    assert path.read_bytes() == whole


def test_flipped_byte_is_detected(tmp_path, some):
    """A flipped byte raises an error or has no effect on the rows."""
    store = RowStore(tmp_path)
    store.write("abc", some, {})
    whole, rows = store.path("abc").read_bytes(), store.read("abc")
    found = 0
    for offset in range(0, len(whole), 131):
        data = bytearray(whole)
        data[offset] ^= 0xFF
        store.path("abc").write_bytes(data)
        try:
            pd.testing.assert_frame_equal(store.read("abc"), rows)
        except DataError:
            found += 1
    assert found > 20


def test_missing_cell_raises(tmp_path):
    with pytest.raises(DataError, match="run posbench sweep again"):
        RowStore(tmp_path).read("abc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown columns colour"),
        ({"status": "fine"}, "'fine' is unknown"),
        ({"status": "ok", "value_sum": None}, "without a finite value"),
        ({"status": "ok", "value_sum": float("nan")}, "without a finite value"),
        ({"n": "many"}, "'n' must hold int64"),
        ({"scheme": None}, "'scheme' has empty values"),
    ],
)
def test_invalid_rows_raise(tmp_path, some, change, message):
    with pytest.raises(DataError, match=message) as error:
        RowStore(tmp_path).write("abc", [*some, some[0] | change], {})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_missing_column_raises(tmp_path, some):
    with pytest.raises(DataError, match="lack the columns kernel"):
        RowStore(tmp_path).write("abc", [{k: v for k, v in some[0].items() if k != "kernel"}], {})


def test_folder_that_cannot_be_written_raises(tmp_path, some):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="choose another folder") as error:
        RowStore(tmp_path / "file" / "cells").write("abc", some, {})
    assert "\n" not in str(error.value)


def test_rows_are_not_left_beside_the_metadata_of_others(tmp_path, some, monkeypatch):
    """Fault: a full disk between the two files left rows out of memory with the status ok, which were never measured again."""
    store = RowStore(tmp_path / "cells")
    store.write("abc", some, {"status": "out_of_memory"})
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("posbench.results.rows._write", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space"):
        store.write("abc", some, {"status": "ok"})
    assert not store.has("abc")


def test_has_is_fast(tmp_path, some):
    store = RowStore(tmp_path)
    store.write("0", some, {})
    for cell in range(1, 300):
        store.path(str(cell)).write_bytes(store.path("0").read_bytes())
    start = time.perf_counter()
    assert all(store.has(str(cell)) for cell in range(300))
    assert time.perf_counter() - start < 2
