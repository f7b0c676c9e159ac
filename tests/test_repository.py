"""Properties of the repository as a whole."""

import ast
import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import posbench
from posbench.data.sources import manifest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = (
    "install",
    "demo",
    "sweep",
    "figures",
    "report",
    "benchmark",
    "test",
    "test-slow",
    "smoke",
    "soak",
    "check",
    "docs",
    "gpu-check",
    "clean",
)


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_all_versions_agree() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation is not None
    assert PROJECT["version"] == posbench.__version__ == citation[1]


def test_make_help_names_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in TARGETS if not re.search(rf"^  {name} +\w", shown, re.MULTILINE)] == []


def test_smoke_tests_exist_and_touch_every_folder_of_tests() -> None:
    listed = runpy.run_path(str(ROOT / "tests" / "conftest.py"))
    smoke = {name.partition("::")[0] for name in listed["SMOKE"]}
    assert {name for name in smoke if not (ROOT / "tests" / name).is_file()} == set()
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    touched = {name.partition("/")[0] for name in (*smoke, *listed["EVERY_VARIANT"]) if "/" in name}
    assert folders == touched


def test_an_unsupported_python_gets_one_line(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "setup.py", "requirements-lock.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.1\n')
    old.chmod(0o755)
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "test", f"PYTHON={old}"],
        cwd=tmp_path,
        env=outer,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert "is Python 3.10.1: posbench needs Python 3.11 to 3.13" in first
    assert "make PYTHON=python3.12 test" in first
    assert all(line.startswith("make:") for line in rest)
    assert not (tmp_path / ".venv").exists()


def test_the_lock_pins_every_dependency_exactly() -> None:
    lock = (ROOT / "requirements-lock.txt").read_text().splitlines()
    assert [line for line in lock if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []  # no +cpu either
    pinned = {normal(line.split("==")[0]) for line in lock}
    extras = {**PROJECT["optional-dependencies"]}
    del extras["trackio"]  # it requires an older pillow than matplotlib draws the published figures with
    wanted = [PROJECT["dependencies"], *extras.values()]
    assert {distribution(line) for lines in wanted for line in lines} - {"posbench"} <= pinned


def test_every_dependency_is_imported() -> None:
    imported = set()
    for path in tracked():
        if path.suffix == ".py" and path.is_relative_to(ROOT / "posbench"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.split(".")[0])
    modules = importlib.metadata.packages_distributions()
    used = {normal(owner) for name in imported for owner in modules.get(name, ())}
    extras = PROJECT["optional-dependencies"]
    assert {distribution(line) for line in PROJECT["dependencies"] + extras["benchmark"]} <= used


def test_the_extra_demo_is_what_the_manifest_lists() -> None:
    """So that `pip install -e .[demo]` has the text of data=sources."""
    assert set(PROJECT["optional-dependencies"]["demo"]) == {entry.package for entry in manifest()}


def distribution(requirement: str) -> str:
    """The normalized name of a requirement's distribution."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return normal(name[0])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_files_stay_small_enough_to_read() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in tracked()
        if path.suffix == ".py" and (lines := path.read_text().count("\n")) > 300
    ]
    assert long == []


def test_no_large_file_is_committed() -> None:
    """Rows of published results, of three seeds and of every scheme, may be larger."""
    published = ROOT / "results" / "published"
    large = [
        path
        for path in tracked()
        if path.stat().st_size > (10_000_000 if path.is_relative_to(published) else 2_000_000)
    ]
    assert large == []


@pytest.mark.parametrize("module", ["results", "report"])
def test_rows_become_figures_without_torch(module: str) -> None:
    heavy = ("torch", "transformers", "datasets", "hydra", "wandb")
    code = (
        "import importlib, pkgutil, sys\n"
        f"module = importlib.import_module('posbench.{module}')\n"
        "for info in pkgutil.walk_packages(getattr(module, '__path__', []), module.__name__ + '.'):\n"
        "    importlib.import_module(info.name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
