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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["benchmark", "--seconds", "-1"], "--seconds -1.0: give a number above 0"),
        (["benchmark", "--seconds", "nan"], "--seconds nan: give a number above 0"),
        (["gpu-check", "--max-minutes", "-1"], "error: --max-minutes -1.0: give a number at least 0"),
        (["gpu-check", "--workers", "0"], "error: --workers 0: give a number at least 1"),
        (["properties", "schemes=[]"], "schemes=[]: give a name"),
        (["figures", "results_dir=.", "experiments=[]"], "experiments=[]: give a name"),
        (["report", "results_dir=.", "experiments=[]"], "experiments=[]: give a name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_numbers_and_lists_without_a_meaning(posbench, arguments, expected):
    """Fault: they ran, -1 seconds as 0 and an empty list as every name; one line was about a flag that was not given."""
    status, _, err = posbench(*arguments)
    assert (status, expected in err, len(err.splitlines())) == (2, True, 1), err


def test_a_gpu_check_without_a_gpu(posbench, monkeypatch):
    """Fault: the status was 0, as if everything had been checked and found equal."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, err = posbench("gpu-check")
    assert (status, "no CUDA device here" in err) == (2, True), err
