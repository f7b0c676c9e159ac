"""The model card: its tables are of the model that was exported, and its commands and tokens are true of it."""

from dataclasses import asdict, replace

import pytest
from conftest import MODEL, settings, write_trained
from synthetic_rows import synthetic_rows

from posbench.commands.export import trained_folder
from posbench.config.schema import ExtensionSettings
from posbench.export import card
from posbench.export.source_model import load_trained
from posbench.results.rows import RowStore

ROPE = {"_target_": "posbench.schemes.rope.RoPE"}
PI = {"_target_": "posbench.extensions.pi.PositionInterpolation"}
BY_NAME = {"_target_": "extension/pi"}
FIXED_TARGETS = {"_target_": "task/fixed_targets", "max_context": 1024}


def write_rows(
    results, label, build=None, lengths=(64, 128, 256), date="2026-01-01", task=FIXED_TARGETS, mark=""
):
    """Writes rows of rope, with the extension pi where a label is given."""
    rows = synthetic_rows(documents=4, contexts=4, schemes=["rope"]).assign(model_id=MODEL)
    rows = rows[
        (rows["protocol"] == "fixed_targets") & (rows["extension"] == ("pi" if label != "none" else "none"))
    ]
    for (cell, length), part in rows.groupby(["cell_id", "eval_len"]):
        if length in lengths:
            named = part.assign(extension=label, cell_id=f"{cell}{mark}").astype(object)
            records = named.where(part.notna(), None).to_dict("records")
            run = {"extension": build, "task": task, "date": date}
            RowStore(results / "cells").write(f"{cell}{label}{mark}", records, run)


def lengths_of(folder, build, length):
    """Returns the evaluated lengths with an extension and without one that a card lists, and its notes."""
    source = load_trained(folder, ExtensionSettings("pi", build), length)
    rows, notes = card.rows_of(source, folder.parents[1])
    with_one = rows["extension"] != "none"
    return sorted(set(rows.loc[with_one, "eval_len"])), sorted(set(rows.loc[~with_one, "eval_len"])), notes


@pytest.fixture
def rope(tmp_path):
    return write_trained(tmp_path / "results", settings(ROPE, "rope"))


def test_rows_of_the_exported_extension_only(rope, tmp_path):
    """Fault: a card with factor 9 had the line "rope + pi" of a measurement with factor auto."""
    write_rows(tmp_path / "results", "none")
    write_rows(tmp_path / "results", "pi", {**BY_NAME, "factor": "auto"})
    everything = [64, 128, 256]
    with_one, without, notes = lengths_of(rope, {**PI, "factor": 9}, 64)
    assert (with_one, without) == ([], everything)
    assert notes[0].startswith("Not evaluated by posbench with these settings of the extension")
    assert lengths_of(rope, {**PI, "factor": "auto"}, 256) == ([256], everything, [])
    write_rows(tmp_path / "results", "pi_4", {**BY_NAME, "factor": 4})
    assert lengths_of(rope, {**PI, "factor": 4}, 128) == (everything, everything, [])


def test_a_fine_tuned_model(posbench, tmp_path):
    """Fault: the card of a fine-tuned model said "not evaluated" and gave the tokens of the pretraining alone."""
    given = settings(ROPE, "rope")
    tuned = asdict(replace(given.train, steps=5, batch_size=12, seq_len=256))
    results = tmp_path / "results"
    folder = write_trained(results, given, settings={**asdict(given), "finetune": tuned})
    write_rows(results, "pi_ft", {**BY_NAME, "factor": "auto"}, lengths=(64, 256, 512))
    assert lengths_of(folder, {**PI, "factor": "auto"}, None) == ([64, 256], [], [])
    status, _, err = posbench("export", folder, "--to", tmp_path / "out", "--extension", "pi")
    assert status == 0, err
    text = (tmp_path / "out" / "README.md").read_text()
    assert "rope + pi\\_ft" in text or "rope + pi_ft" in text
    assert f"21,504, and {5 * 12 * 256:,} of the fine-tuning" in text
    assert "# the pretraining; posbench sweep fine-tuned the model\nposbench train " in text
    assert "finetune:" in text


def test_a_fine_tuned_model_keeps_its_extension(posbench, tmp_path):
    """Fault: a model that was fine-tuned on longer texts, without an extension, could not be exported."""
    given = settings(ROPE, "rope")
    tuned = {**asdict(given), "finetune": asdict(replace(given.train, steps=5, seq_len=256))}
    built = {"_target_": "posbench.extensions.pi.PositionInterpolation", "factor": "auto"}
    for name, build, shown in (("longer", None, "extension: null"), ("pi_ft", built, built["_target_"])):
        extension = asdict(ExtensionSettings(name, build))
        folder = write_trained(tmp_path / name, given, settings=tuned, extension=extension)
        status, _, err = posbench("export", folder, "--to", tmp_path / name / "out")
        assert status == 0, err
        assert shown in (tmp_path / name / "out" / "README.md").read_text()


def test_two_evaluations_of_a_task(posbench, rope, tmp_path):
    """Fault: fixed_targets at [16,32] and then at 16 made the model impossible to export."""
    write_rows(tmp_path / "results", "none")
    newer = {**FIXED_TARGETS, "max_context": 128}
    write_rows(tmp_path / "results", "none", None, (64, 128), "2026-01-02", newer, "b")
    status, _, err = posbench("export", rope, "--to", tmp_path / "out")
    assert status == 0, err
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Earlier evaluations with other settings of perplexity fixed_targets are left out." in text
    assert "| 128 (2" in text
    assert "| 256 (4" not in text


def test_a_cell_that_cannot_be_read(rope, tmp_path):
    """Fault: a damaged cell, also of another model, ended every export in a traceback."""
    write_rows(tmp_path / "results", "none")
    (tmp_path / "results" / "cells" / "torn.parquet").write_bytes(b"PAR1")
    _, without, notes = lengths_of(rope, None, 64)
    assert without == [64, 128, 256]
    assert notes == ["Left out because they cannot be read: torn.parquet."]


def test_the_folder_of_a_model_by_its_name(tmp_path, monkeypatch):
    """Fault: `posbench export ID` within the folder of all models ended in an IndexError."""
    (tmp_path / "models" / "0f3a" / "final").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models")
    assert trained_folder("0f3a", tmp_path) == tmp_path / "models" / "0f3a"
    monkeypatch.chdir(tmp_path / "models" / "0f3a")
    assert trained_folder("final", tmp_path) == tmp_path / "models" / "0f3a"
