"""Reports once left new files beside old ones when a figure failed, and deleted what a report.json of others named."""

import json
import subprocess
import sys

import pytest
from test_figure_kinds import config

from posbench import checksums
from posbench.errors import ConfigError, PosbenchError
from posbench.report import report_writer
from posbench.report.experiment import save_experiment
from posbench.report.figures import draw_figure
from posbench.report.report_writer import STAMP, write_report

ORDER = ["rope", "alibi"]
FIGURES = [config("fixed_targets"), config("extensions")]


@pytest.fixture
def few(rows):
    rows = rows[rows["scheme"].isin(ORDER) & rows["extension"].isin(["none", "pi"])]
    rows = rows[(rows["protocol"] == "fixed_targets") & (rows["eval_len"] <= 256)]
    return rows[rows["doc_id"].isin(["doc000", "doc001", "doc002"])]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_report_that_fails_leaves_the_earlier_one(few, tmp_path):
    write_report(few, FIGURES, tmp_path, ORDER)
    before = contents(tmp_path)
    few = few.assign(value_sum=few["value_sum"] * 1.01)
    with pytest.raises(ConfigError, match="unknown setting"):
        write_report(few, [FIGURES[0], FIGURES[1] | {"titel": "x"}], tmp_path, ORDER)
    assert contents(tmp_path) == before


def test_a_first_report_that_fails_leaves_nothing(few, tmp_path):
    with pytest.raises(ConfigError, match="unknown setting"):
        write_report(few, [FIGURES[0], FIGURES[1] | {"titel": "x"}], tmp_path, ORDER)
    assert not contents(tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "name",
    [
        "../precious",
        "{absolute}",
        "tables/../../precious",
        "figures/..",
        "figures/link/precious",
        "rows.parquet",
        3,
    ],
)
def test_files_that_a_report_of_others_names_are_kept(few, tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    out = tmp_path / "demo"
    write_report(few, FIGURES[:1], out, ORDER)
    (out / "rows.parquet").write_text("mine")
    (out / "figures" / "link").symlink_to(tmp_path)
    stamp = checksums.read_json(out / STAMP)
    stamp["outputs"][str(name).format(absolute=precious)] = "0" * 64
    stamp["inputs"] = "those of an earlier report"
    if name == 3:
        stamp["outputs"] = [3]
    (out / STAMP).write_bytes(checksums.dump_json(stamp))
    write_report(few, FIGURES[:1], out, ORDER)
    assert precious.read_text() == (out / "rows.parquet").read_text() == "mine"
    assert str(name) not in checksums.read_json(out / STAMP)["outputs"]


def test_nothing_is_written_or_deleted_behind_a_link(few, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.tex").write_text("mine")
    (others / "models.md").write_text("mine")
    out = tmp_path / "demo"
    out.mkdir()
    (out / "tables").symlink_to(others)
    (out / STAMP).write_text(
        json.dumps({"inputs": "", "left_out": [], "outputs": {"tables/thesis.tex": "0"}})
    )
    with pytest.raises(ConfigError, match=r"^[^\n]*tables is a link: remove it[^\n]*$"):
        write_report(few, FIGURES[:1], out, ORDER)
    assert contents(others) == {"thesis.tex": b"mine", "models.md": b"mine"}


@pytest.mark.parametrize("column", ["protocol", "variant", "task", "corpus", "model_size"])
def test_labels_do_not_leave_the_folder_of_tables(few, tmp_path, column):
    two = few.assign(**{column: few[column].where(few["scheme"] == "rope", "../../../x/y")})
    paths = write_report(two, [], tmp_path / "a" / "b" / "demo", ORDER)
    assert paths
    assert {path.parent.name for path in paths} == {"tables"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/b", "x" * 300, "x\ny"])
def test_names_of_figures_stay_in_the_folder(few, tmp_path, name):
    with pytest.raises(PosbenchError, match=r"^figure name [^\n]*$"):
        draw_figure(FIGURES[0] | {"name": name}, few, tmp_path / "figures", ORDER)
    assert not list(tmp_path.iterdir())


def test_two_figures_of_one_name_are_refused(few, tmp_path):
    with pytest.raises(ConfigError, match="two figures have the name fixed_targets"):
        write_report(few, [FIGURES[0], FIGURES[0] | {"title": "x"}], tmp_path, ORDER)


def test_a_table_that_another_process_writes_meanwhile_is_not_kept(few, tmp_path, monkeypatch):
    """Of three sweeps that drew at once, one read a table that another was writing."""
    out, draw = tmp_path / "demo", report_writer._figures
    tables = [path for path in write_report(few, [], out, ORDER) if path.parent.name == "tables"]
    whole = [path.read_bytes() for path in tables]

    def meanwhile(*args):
        for path in tables:
            path.write_text("half")
        return draw(*args)

    monkeypatch.setattr(report_writer, "_figures", meanwhile)
    write_report(few, FIGURES[:1], out, ORDER)
    assert [path.read_bytes() for path in tables] == whole


def test_three_processes_that_draw_at_once_leave_one_report(few, tmp_path):
    out = tmp_path / "demo"
    save_experiment(out, few, ORDER, ["fixed_targets"])
    command = [sys.executable, "-m", "posbench", "figures", f"results_dir={tmp_path}", "experiments=[demo]"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate()[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    outputs = checksums.read_json(out / STAMP)["outputs"]
    assert {name: checksums.file_digest(out / name) for name in outputs} == outputs
    assert not list(out.glob(".*"))
