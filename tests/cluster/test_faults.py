"""Sweeps on this machine that are killed, doubled or lose their folder; scripts/soak.py does the same for long."""

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from clusters import wait_until

import soak  # isort: skip - of scripts/, which clusters adds to the path


@pytest.fixture(scope="module")
def undisturbed(shared: Path, cache: Path) -> tuple[bytes, float]:
    """The rows of an undisturbed sweep in one process, and its seconds."""
    results, began = shared / f"undisturbed-{time.monotonic_ns()}", time.monotonic()
    soak.finish(soak.sweep(results, cache, "inline"))
    return soak.rows(results), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_killed_at_random_moments(launcher, tmp_path, cache, undisturbed):
    expected, seconds = undisturbed
    counts = soak.survive(
        tmp_path / "results of a lab", cache, launcher, expected, 2, random.Random(launcher), seconds
    )
    print(launcher, dict(counts))
    assert counts["sweeps"] == 1


@pytest.mark.slow
def test_three_sweeps_at_once(tmp_path, cache, undisturbed):
    """One of them is killed; the others take its job."""
    processes = [soak.sweep(tmp_path, cache, name) for name in ("local", "inline", "inline")]
    wait_until(lambda: list(tmp_path.glob("models/*/step-*")) or processes[2].poll() is not None)
    processes[2].kill()
    processes[2].communicate()
    for process in processes[:2]:
        soak.finish(process)
    assert soak.rows(tmp_path) == undisturbed[0]
    assert not [*tmp_path.rglob("*.damaged-*"), *tmp_path.glob("locks/*.lease-*")]


@pytest.mark.parametrize("launcher", ["inline", "local"])
@pytest.mark.slow
def test_a_results_folder_that_is_removed(launcher, tmp_path, cache):
    process = soak.sweep(tmp_path / "results", cache, launcher, "train.steps=100000")
    wait_until(lambda: list(tmp_path.glob("results/models/*/step-*")))
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert output.count("error: ") == 1


def mounted(folder: Path, megabytes: int) -> bool:
    """Mounts a small file system; returns whether this user may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}M", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_a_results_folder_that_is_full(launcher, tmp_path, cache, undisturbed):
    """It ends with one line; after making room, the same command continues."""
    folder = tmp_path / "small"
    if not mounted(folder, 1):
        pytest.skip("this user may not mount a file system")
    try:
        filler = folder / "filler"
        with filler.open("wb") as file:
            file.write(bytes(2**20 - 2**17))
        process = soak.sweep(folder / "results", cache, launcher)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 2, output
        assert "Traceback" not in output
        assert output.count("error: ") == 1, output
        assert "No space left on device" in output
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=50M", str(folder)], check=True)
        soak.finish(soak.sweep(folder / "results", cache, launcher))
        assert soak.rows(folder / "results") == undisturbed[0]
    finally:
        subprocess.run(["umount", str(folder)], check=True)
