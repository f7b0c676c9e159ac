"""Rows of a results folder as a data set, and rows of others in a leaderboard."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import MODEL, evaluated
from synthetic_rows import synthetic_rows

from posbench.commands.results import joined_notes
from posbench.report.experiment import read_metadata, save_experiment
from posbench.results.exchange import add_cells, collect_rows, merge
from posbench.results.rows import SCHEMA, RowStore, read_rows, write_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, trained: Path) -> Path:
    """A results folder with cells of one model, two of them also in an experiment."""
    rows = evaluated()
    save_experiment(
        tmp_path / "results" / "mine", rows[rows["eval_len"] <= 128], ["alibi"], ["fixed_targets"]
    )
    return tmp_path / "results"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Rows of somebody else: one cell that is here too, from another machine, and a new one of another model."""
    rows = evaluated()
    same = rows[rows["eval_len"] == 64].assign(kernel="flex")
    same["value_sum"] *= 1 + 1e-6
    other = rows[rows["eval_len"] == 128].assign(model_id="f" * 16, cell_id="e" * 16, train_seed=1)
    (tmp_path / "theirs").mkdir()
    write_rows(pd.concat([same, other]), tmp_path / "theirs" / "rows.parquet")
    return tmp_path / "theirs"


def test_every_cell_is_exported_once(posbench, here, tmp_path):
    status, out, err = posbench("results", "export", "--to", tmp_path / "out", "--results-dir", here)
    assert (status, err) == (0, "")
    rows = read_rows(tmp_path / "out" / "rows.parquet")
    assert len(rows) == len(evaluated())
    assert f"{len(rows):,} rows of 5 cells" in out
    assert pq.read_schema(tmp_path / "out" / "rows.parquet").metadata[b"posbench.rows"] == b"3"


def test_an_export_is_judged_by_the_gate(posbench, tmp_path):
    """Fault: an export had status ok for models below the gate, and its card recommends the rows with status ok."""
    rows = synthetic_rows(documents=2, contexts=4, schemes=["nope"]).query("task == 'key_value'")
    store = RowStore(tmp_path / "results" / "cells")
    for cell, part in rows.assign(status="ok").groupby("cell_id"):
        records = part.astype(object).where(part.notna(), None).to_dict("records")
        store.write(str(cell), records, {})
    assert (
        posbench("results", "export", "--to", tmp_path / "out", "--results-dir", tmp_path / "results")[0] == 0
    )
    assert set(read_rows(tmp_path / "out" / "rows.parquet")["status"]) == {"not_learned"}


def test_the_data_card(posbench, here, tmp_path):
    posbench("results", "export", "--to", tmp_path / "out", "--results-dir", here, "--experiments", "mine")
    card = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "cc-by-4.0"
    assert head["configs"][0]["data_files"] == "rows.parquet"
    for field in SCHEMA:
        assert f"| {field.name} | {field.type} |" in card, "every column has a type and a meaning"
    # Fault: the formula included rows of other statuses, and one meaning of `position` was missing.
    for words in (
        "of rows with status `ok`: drop the others first",
        "attention_at_distance, the exclusive end",
    ):
        assert words in card
    for words in ("nats, bytes, fraction", "Version 3", "@software", "| evaluations (cell_id) | 2 |"):
        assert words in card
    assert f"posbench results export --to {tmp_path / 'out'}" in card


def test_an_import_is_a_leaderboard(posbench, here, theirs):
    arguments = ("--name", "leaderboard", "--with", "mine", "--results-dir", here)
    status, out, err = posbench("results", "import", theirs, *arguments)
    assert (status, err) == (0, "")
    assert "2 cells" in out
    assert "1 are here already" in out
    rows = read_rows(here / "leaderboard" / "rows.parquet")
    assert set(rows["model_id"]) == {MODEL, "f" * 16}
    assert rows["cell_id"].nunique() == 3
    assert posbench("results", "import", theirs, *arguments)[0] == 0
    assert len(read_rows(here / "leaderboard" / "rows.parquet")) == len(rows), "a second import adds nothing"
    status, out, err = posbench("figures", "experiments=[leaderboard]", f"results_dir={here}")
    assert (status, err) == (0, "")
    table = (here / "leaderboard" / "tables").glob("*bits_per_byte.md")
    assert "2 training seeds" in next(table).read_text()


def test_an_import_keeps_the_note_and_the_command_of_its_experiment(posbench, here, theirs):
    """Fault: an import removed the note about the training from captions, and the command from the report."""
    tuned = "Fine-tuned, with the extension in place:"
    for name, note in {
        "mine": f"25% of the training sequences are synthetic. {tuned} a (pi, steps 5), b (yarn).",
        "other": f"{tuned} c (ntk).",
    }.items():
        save_experiment(here / name, evaluated(), ["alibi"], [], note, ["posbench", "sweep", f"name={name}"])
    mine = read_metadata(here / "mine")
    arguments = ("results", "import", theirs, "--results-dir", here, "--name", "mine")
    assert posbench(*arguments)[::2] == (0, "")
    assert len(read_rows(here / "mine" / "rows.parquet")) > len(evaluated())
    assert read_metadata(here / "mine") == mine
    for _ in range(2):
        assert posbench(*arguments, "--with", "other")[::2] == (0, "")
        assert read_metadata(here / "mine")["caption_note"] == (
            f"25% of the training sequences are synthetic. {tuned} a (pi, steps 5), b (yarn), c (ntk)."
        )


def test_notes_that_differ_name_their_experiments():
    assert joined_notes({"a": "25% synthetic.", "b": "25% synthetic.", "c": ""}) == "25% synthetic."
    both = joined_notes({"a": "25% synthetic.", "b": "5% synthetic."})
    assert both == "25% synthetic. b: 5% synthetic."
    assert joined_notes({"a": both, "b": "5% synthetic."}) == both
    assert joined_notes({}) == ""


def test_cells_are_imported(posbench, here, theirs):
    """A sweep takes them as measured, so that published models are not trained again."""
    rows = read_rows(theirs / "rows.parquet")
    full = (
        rows[rows["cell_id"] == "e" * 16]
        .head(1)
        .assign(cell_id="d" * 16, status="out_of_memory", value_sum=None)
    )
    gated = rows["status"].mask(rows["cell_id"] == "e" * 16, "not_learned")
    write_rows(pd.concat([rows.assign(status=gated), full]), theirs / "rows.parquet")
    status, out, err = posbench("results", "import", theirs, "--results-dir", here)
    assert (status, err) == (0, "")
    assert "3 cells" in out
    assert "1 of them added" in out, "one is here, and one did not fit in the memory of another device"
    store = RowStore(here / "cells")
    expected = rows[rows["cell_id"] == "e" * 16].reset_index(drop=True)
    pd.testing.assert_frame_equal(store.read("e" * 16), expected)
    assert store.run_metadata("e" * 16) == {"status": "ok", "imported_from": str(theirs)}
    assert "0 of them added" in posbench("results", "import", theirs, "--results-dir", here)[1]


def test_options_of_an_imported_experiment(posbench, here, theirs):
    for option in ("--suffix", "--with"):
        status, out, err = posbench("results", "import", theirs, option, "mine", "--results-dir", here)
        assert (status, out) == (2, "")
        assert "add --name NAME" in err


def test_a_suffix_keeps_their_labels_apart(posbench, here, theirs):
    posbench("results", "import", theirs, "--name", "both", "--suffix", "lab", "--results-dir", here)
    assert set(read_rows(here / "both" / "rows.parquet")["scheme"]) == {"alibi (lab)"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.assign(value_sum=rows["value_sum"] * 1.01), "other content (value_sum"),
        (lambda rows: rows.iloc[1:], "other content (8 and 7 rows)"),
        (lambda rows: rows.assign(dtype="bfloat16"), "other content (dtype"),
        (lambda rows: rows.assign(cell_id="new", n_params=7), "has several n_params"),
    ],
)
def test_clashes_are_refused(posbench, here, theirs, change, message):
    rows = evaluated()
    write_rows(change(rows[rows["eval_len"] == 64]), theirs / "rows.parquet")
    for name in (("--name", "leaderboard"), ()):
        status, out, err = posbench("results", "import", theirs, *name, "--results-dir", here)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert message in err
        assert not (here / "leaderboard").exists()
        assert not RowStore(here / "cells").path("new").exists()


def test_rows_of_another_schema(posbench, here, theirs):
    """The file of somebody else stays where it is, under its name: our own damaged files are renamed."""
    path = theirs / "rows.parquet"
    table = pq.read_table(path)
    newer = table.replace_schema_metadata({"posbench.rows": "4"})
    for content, reason in (
        (newer, "row schema 4, this is 3"),
        (table.replace_schema_metadata({}), "row schema none"),
        (table.drop_columns(["metric"]), "other columns"),
    ):
        pq.write_table(content, path)
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        status, _, err = posbench("results", "import", path, "--name", "x", "--results-dir", here)
        assert status == 2
        assert reason in err
        assert "give rows of schema 3 or older" in err
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    path.write_text("no parquet")
    assert "cannot be used" in posbench("results", "import", path, "--name", "x", "--results-dir", here)[2]


def test_rows_of_an_older_schema_are_read(posbench, here, theirs):
    path = theirs / "rows.parquet"
    table = pq.read_table(path)
    old = {
        "cell_id": "cell",
        "model_id": "model",
        "model_size": "size",
        "doc_id": "document",
        "value_sum": "value",
    }
    renamed = table.rename_columns([old.get(name, name) for name in table.schema.names])
    pq.write_table(renamed.replace_schema_metadata({"posbench.rows": "2"}), path)
    assert posbench("results", "import", path, "--name", "old", "--results-dir", here)[0] == 0
    found = read_rows(here / "old" / "rows.parquet")
    assert np.isclose(found["value_sum"].sum(), table["value_sum"].to_pandas().sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--to", "{full}"], "is not empty"),
        (["export", "--to", "{new}", "--push", "a b"], "is not a repository"),
        (["export", "--to", "{new}", "--experiments", "none"], "no rows at"),
        (["export", "--to", "{new}", "--results-dir", "{new}"], "no rows in"),
        (["import", "{theirs}", "--name", "../up"], "give a name of letters"),
        (["import", "{theirs}", "--name", "cells"], "posbench has folders of this name"),
        (["import", "{theirs}/none.parquet", "--name", "x"], "no rows at"),
        (["import", "not a name", "--name", "x"], "is not a repository"),
        (["import", "{theirs}", "--name", "x", "--suffix", "<b>"], "--suffix"),
        (["push"], "invalid choice"),
    ],
)
def test_mistakes_are_one_line(posbench, here, theirs, tmp_path, arguments, message):
    places = {"full": here, "new": tmp_path / "new", "theirs": theirs}
    given = [one.format(**places) for one in arguments]
    if "--results-dir" not in given and len(given) > 1:
        given += ["--results-dir", str(here)]
    status, out, err = posbench("results", *given)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_published_rows_are_one_data_set(posbench, tmp_path):
    """Experiments that share cells have one content for each."""
    shutil.copytree(ROOT / "results" / "published" / "algorithmic", tmp_path / "results" / "one")
    shutil.copytree(ROOT / "results" / "published" / "algorithmic", tmp_path / "results" / "two")
    posbench("results", "export", "--to", tmp_path / "out", "--results-dir", tmp_path / "results")
    rows, once = (
        read_rows(tmp_path / "out" / "rows.parquet"),
        read_rows(tmp_path / "results" / "one" / "rows.parquet"),
    )
    assert len(rows) == len(once)


def test_a_damaged_cell_does_not_stop_the_export_of_an_experiment(here):
    """Fault: an export of named experiments read all cells of the folder and failed on a damaged cell of another experiment."""
    (here / "cells").mkdir(exist_ok=True)
    damaged = here / "cells" / "other.parquet"
    damaged.write_text("damaged")
    assert len(collect_rows(here, ["mine"])) == (evaluated()["eval_len"] <= 128).sum()
    assert damaged.exists()


def test_a_cell_that_is_there_twice_counts_once(here, theirs):
    """Fault: a cell whose rows are there twice raised "8 and 16 rows: other content"."""
    rows = evaluated()
    twice = pd.concat([rows, rows[rows["eval_len"] == 64]], ignore_index=True)
    for ours in (rows, rows.iloc[:0]):
        found, _ = merge(ours, twice, "here")
        assert len(found) == len(rows)


def test_a_measured_cell_replaces_one_that_ran_out_of_memory(tmp_path):
    """Fault: rows could not be exported if a cell had run out of memory and was measured later on another device."""
    rows = evaluated()
    cell = rows["cell_id"].iat[0]
    short = rows[rows["cell_id"] == cell].head(1).assign(status="out_of_memory", value_sum=None, n=0)
    without = pd.concat([rows[rows["cell_id"] != cell], short])
    for ours, theirs in ((without, rows), (rows, without)):
        merged, _ = merge(ours, theirs, "here")
        assert len(merged) == len(rows)
        assert set(merged["status"]) == {"ok"}
    store = RowStore(tmp_path)
    store.write(cell, short, {"status": "out_of_memory"})
    add_cells(store, rows, "theirs")
    assert len(store.read(cell)) == (rows["cell_id"] == cell).sum()
