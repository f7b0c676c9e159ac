"""Fault: wrong arguments ran, created folders, or were answered by lines that did not say what is allowed."""

import pytest


@pytest.mark.parametrize("command", ["reproductions", "report", "figures"])
def test_a_results_folder_that_is_missing(posbench, tmp_path, command):
    """Fault: reproductions created it and listed every claim as not measured."""
    status, _, err = posbench(command, f"results_dir={tmp_path}/none")
    assert (status, f"no results folder {tmp_path}/none" in err) == (2, True), err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("out", "expected"), [("none/x.html", "no folder"), (".", "is a folder: give a file")])
def test_a_report_where_no_file_can_be(posbench, tmp_path, out, expected):
    """Fault: the folder was created; a folder in place of the file was answered by "make room"."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "experiment.json").touch()
    status, _, err = posbench("report", f"results_dir={tmp_path}", f"out={tmp_path / out}")
    assert (status, expected in err, len(err.splitlines())) == (2, True, 1), err
    assert not (tmp_path / "none").exists()
