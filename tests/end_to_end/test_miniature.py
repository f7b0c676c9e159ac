"""The demo in miniature: nothing is computed twice, and a killed sweep continues to the same rows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from posbench.commands import run
from posbench.sweep.claims import read_lease

MINIATURE = "experiment=miniature"
# Drawing is half of the time of a sweep, and rows do not depend on it.
NO_FIGURES = (MINIATURE, "figures=[]")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache) -> Path:
    """The results folder of an uninterrupted miniature sweep."""
    results = tmp_path_factory.mktemp("uninterrupted")
    script = Path(__file__).parents[2] / "scripts" / "sweep.py"
    where = [f"runtime.results_dir={results}", f"runtime.cache_dir={cache}"]
    ended = subprocess.run(
        [sys.executable, script, MINIATURE, *where], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return results


def test_imported_rows_are_not_measured_again(uninterrupted, script, tmp_path):
    """A sweep with the published rows of others trains only the models that they lack."""
    results = tmp_path / "results"
    assert run(["results", "import", str(uninterrupted / "miniature"), "--results-dir", str(results)]) == 0
    done = script("sweep", *NO_FIGURES)
    assert done.code == 0, done.err
    assert "0 to train" in done.out
    assert ", 0 to measure" in done.out
    assert not list(results.glob("models/*"))
    metadata = json.loads((results / "miniature" / "experiment.json").read_text())
    assert metadata["command"] == ["posbench", "sweep", *NO_FIGURES], "without settings of this machine"
    names = (folder / "miniature" / "rows.parquet" for folder in (uninterrupted, results))
    assert len({name.read_bytes() for name in names}) == 1


def drawn(results: Path) -> dict[str, bytes]:
    """The bytes of every table and figure."""
    folder = results / "miniature"
    paths = sorted([*folder.glob("tables/*"), *folder.glob("figures/*")])
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_sweep_writes_rows_tables_and_figures(uninterrupted):
    rows = pd.read_parquet(uninterrupted / "miniature" / "rows.parquet")
    assert set(rows["scheme"]) == {"nope", "learned", "rope"}
    assert set(rows["extension"]) == {"none", "pi", "rerope", "window"}
    assert set(rows["protocol"]) == {"fixed_targets", "non_overlapping", "prefix", "synthetic_records"}
    # Models of this size learn nothing in 30 steps, so their retrieval is marked as not learned.
    assert set(rows.loc[rows["task"] == "key_value", "status"]) == {"not_learned", "undefined"}
    past = (rows["scheme"] == "learned") & (rows["eval_len"] > 16)
    assert set(rows.loc[past, "status"]) == {"undefined"}
    names = set(drawn(uninterrupted))
    for stem in (
        "fixed_targets",
        "loss_by_position",
        "retrieval_by_position",
        "retrieval_heat_map",
        "extensions",
    ):
        assert {f"figures/{stem}.{kind}" for kind in ("png", "pdf", "csv")} <= names
    assert {f"tables/perplexity-fixed_targets-bits_per_byte.{kind}" for kind in ("csv", "md", "tex")} <= names


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_redraws_the_same_bytes(script, tmp_path, uninterrupted):
    results = tmp_path / "results"
    shutil.copytree(uninterrupted, results)
    before = drawn(results)
    for folder in ("tables", "figures"):
        shutil.rmtree(results / "miniature" / folder)
    started = time.monotonic()
    result = script("sweep", MINIATURE)
    assert result.code == 0, result
    assert "3 models, 0 to train; " in result.out
    assert ", 0 to measure" in result.out
    assert time.monotonic() - started < 60  # seconds, on a busy machine
    assert drawn(results) == before


def test_a_finished_sweep_is_quick(tmp_path, uninterrupted, cache):
    """It imports torch to name its cells, and nothing to compile, plot or track them."""
    code = (
        "import json, sys, time; from posbench.commands import run; status = run(sys.argv[1:]); "
        "heavy = [name for name in ('torch._dynamo', 'matplotlib', 'transformers', 'datasets', 'wandb', 'scipy') "
        "if name in sys.modules]; print(json.dumps([status, time.process_time(), heavy]))"
    )
    where = [f"runtime.results_dir={uninterrupted}", f"runtime.cache_dir={cache}"]
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", MINIATURE, *where], capture_output=True, text=True, check=True
    )
    status, seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    assert (status, heavy) == (0, [])
    assert seconds < 10  # of CPU; five is the goal


def test_a_dry_run_lists_the_jobs_and_writes_nothing(script, tmp_path):
    result = script("sweep", MINIATURE, "--dry-run")
    assert result.code == 0, result
    assert "3 models, 3 to train; 88 cells, 88 to measure; " in result.out
    lines = [line for line in result.out.splitlines() if line.startswith("to do: ")]
    assert len(lines) == 9
    assert "to do: train rope, miniature, length 16, seed 0, 3.84 ktokens, 248 MFLOP" in lines
    assert not (tmp_path / "results").exists()


def test_figures_need_no_torch(tmp_path, uninterrupted):
    results = tmp_path / "results"
    shutil.copytree(uninterrupted / "miniature", results / "miniature")
    before = drawn(results)
    shutil.rmtree(results / "miniature" / "figures")
    script = Path(__file__).parents[2] / "scripts" / "figures.py"
    code = (
        "import runpy, sys; sys.modules['torch'] = None; "
        f"sys.argv = ['figures.py', 'results_dir={results}']; runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert drawn(results) == before


def kill_when(process: subprocess.Popen, reached, seconds: float = 60.0) -> None:
    """Kills the process and its workers with SIGKILL as soon as `reached` returns true."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and not reached():
        assert time.monotonic() < deadline, "never reached"
        time.sleep(0.01)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_killed_sweep_ends_with_the_rows_of_an_uninterrupted_one(started, tmp_path, uninterrupted):
    results = tmp_path / "results"
    points = [
        lambda: any(results.glob("models/*/step-*")),
        lambda: any(results.glob("models/*/final")),
        lambda: len(list(results.glob("cells/*.parquet"))) >= 3,
        lambda: len(list(results.glob("cells/*.parquet"))) >= 20,
    ]
    for reached in points:
        kill_when(started("sweep", *NO_FIGURES), reached)
    last = started("sweep", *NO_FIGURES)
    output, _ = last.communicate(timeout=120)
    assert last.returncode == 0, output
    rows = "miniature/rows.parquet"
    assert (results / rows).read_bytes() == (uninterrupted / rows).read_bytes()


@pytest.mark.slow
def test_an_interrupted_sweep_saves_checkpoints(started, tmp_path, uninterrupted):
    results = tmp_path / "results"
    interval = 50
    process = started("sweep", MINIATURE, "train.steps=100000", f"runtime.checkpoint_interval={interval}")
    deadline = time.monotonic() + 60
    while not any(results.glob("models/*/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Some steps after a checkpoint, so that only a new checkpoint saves them.
    time.sleep(0.5)
    before = {path.parent.name: int(path.name[5:]) for path in results.glob("models/*/step-*[0-9]")}
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "continues from here" in output
    assert "Traceback" not in output
    after = {
        path.parent.name: json.loads((path / "metadata.json").read_text())["step"]
        for path in results.glob("models/*/step-*[0-9]")
    }
    assert before
    assert all(after[model] >= step for model, step in before.items())
    # Of two trainings at once, one in 2500 pairs ends at two steps that are saved anyway.
    assert any(step % interval for step in after.values()), f"no checkpoint at the end: {after}"


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_jobs(started, tmp_path, uninterrupted):
    """Fault: models that were trained by both passed unnoticed, because each prints the jobs of the other."""
    results, owners = tmp_path / "results", {}
    both = [started("sweep", *NO_FIGURES), started("sweep", *NO_FIGURES)]
    while any(process.poll() is None for process in both):
        for path in results.glob("locks/[!.]*.train.lease-*"):
            if owner := read_lease(path).get("owner"):
                owners.setdefault(path.name.partition(".")[0], set()).add(owner)
        time.sleep(0.02)
    output = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], output
    rows = "miniature/rows.parquet"
    assert (results / rows).read_bytes() == (uninterrupted / rows).read_bytes()
    assert owners.keys() == {path.name for path in results.glob("models/*")}
    assert {model: len(found) for model, found in owners.items()} == dict.fromkeys(owners, 1)
    assert not list(results.rglob("*.tmp")) + list(results.rglob("*.damaged-*"))


@pytest.mark.parametrize("damage", ["cut short", "another version"])
def test_damaged_files_are_reported_set_aside_and_computed_again(script, tmp_path, uninterrupted, damage):
    results = tmp_path / "results"
    shutil.copytree(uninterrupted, results)
    model = sorted(results.glob("models/*/final"))[0]
    cells = sorted(results.glob("cells/*.parquet"))
    if damage == "cut short":
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        cells[0].write_bytes(cells[0].read_bytes()[:-100])
    else:
        metadata = json.loads((model / "metadata.json").read_text())
        (model / "metadata.json").write_text(json.dumps({**metadata, "format": 0}))
        table = pd.read_parquet(cells[0])
        table.to_parquet(cells[0])
    # A model is read only if one of its cells is missing.
    for cell in cells[1:]:
        cell.unlink()
    result = script("sweep", *NO_FIGURES, "runtime.launcher=inline")
    assert result.code == 0, result
    rows = "miniature/rows.parquet"
    assert (results / rows).read_bytes() == (uninterrupted / rows).read_bytes()
    assert list(results.glob("models/*/final.damaged-1"))
    assert list(results.glob("cells/*.damaged-1"))


def test_a_model_that_diverges_becomes_rows(script, tmp_path):
    wild = (
        "train.lr=1e30",
        "train.muon_lr=1e30",
        "train.max_grad_norm=0",
        "train.warmup_fraction=0",
        "runtime.launcher=inline",
    )
    result = script("sweep", MINIATURE, "grid.scheme=[rope]", "grid.extension=[window]", *wild)
    assert result.code == 0, result
    assert "diverged: rope, miniature" in result.out, "no line said so, and the rows were a surprise"
    rows = pd.read_parquet(tmp_path / "results" / "miniature" / "rows.parquet")
    assert set(rows["status"]) == {"diverged"}
    assert rows["value_sum"].isna().all()
