"""The installed package: complete, and usable from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("posbench", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def copied(folder: Path) -> Path:
    """The files of the checkout that a build reads."""
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the installed setuptools from a copy, which leaves nothing behind in the checkout."""
    folder = copied(tmp_path_factory.mktemp("wheel"))
    pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "wheel"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, str(folder), *offline, "--wheel-dir", str(folder / "dist")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next((folder / "dist").glob("*.whl"))


def test_it_carries_all_that_the_package_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        entry_points = archive.read(
            next(name for name in inside if name.endswith("entry_points.txt"))
        ).decode()
    assert "posbench = posbench.commands:main" in entry_points
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "posbench").rglob("*.py")}
    settings = {
        f"posbench/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")
    }
    others = {"posbench/data/sources.manifest", "posbench/report/figures/posbench.mplstyle"}
    others |= {f"posbench/report/html/report.{ending}" for ending in ("css", "html.j2", "js")}
    assert sources | settings | others <= inside
    assert {name.split("/")[0].split("-")[0] for name in inside} == {"posbench"}


@pytest.mark.slow
def test_it_is_the_same_from_the_source_distribution(wheel: Path, tmp_path: Path) -> None:
    """Fault: the source distribution had no configs, nor had the wheel that python -m build makes from it."""

    def build(kind: str, folder: Path) -> Path:
        code = f"from setuptools import build_meta; build_meta.build_{kind}({str(tmp_path / kind)!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return next((tmp_path / kind).iterdir())

    (tmp_path / "checkout").mkdir()
    shutil.unpack_archive(build("sdist", copied(tmp_path / "checkout")), tmp_path / "unpacked", filter="data")
    again = build("wheel", next((tmp_path / "unpacked").iterdir()))
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert set(other.namelist()) == set(one.namelist())


def test_it_runs_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, without the checkout on the path."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "work").mkdir()

    def posbench(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "posbench", *arguments],
            cwd=tmp_path / "work",
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "tiny" in posbench("list", "sizes")
    assert "name: miniature" in posbench("sweep", "experiment=miniature", "--cfg", "job")
    small = ["size.n_layers=1", "size.d_model=8", "size.n_heads=2", "train.seq_len=8", "train.steps=2"]
    text = tmp_path / "text"
    text.mkdir()
    for n in range(40):
        (text / f"{n}.txt").write_text(f"document {n} is about the number {n}\n" * 40)
    data = ["data=files", f"data.path={text}", "train.synthetic_fraction=0", "runtime.tracker=none"]
    assert "results/models/" in posbench("train", *small, *data)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"results", ".cache"}
