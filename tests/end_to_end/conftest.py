"""Runs the scripts as a user does: in this process if only their result matters, else as processes."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

ROOT = Path(__file__).parents[2]
FOREIGN_CODE = """
from pathlib import Path

from posbench.extensions.pi import PositionInterpolation
from posbench.lm.chunks import ChunkEnsemble
from posbench.schemes.rope import RoPE
from posbench.tasks.fixed_targets import FixedTargets

Path(__file__).with_name("ran").touch()


def draw(data): ...
"""


@dataclass
class ScriptResult:
    """Exit status, stdout and stderr of a script."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tokenized corpora, which all tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cache: Path
) -> Callable[..., ScriptResult]:
    """Runs a script of scripts/ in this process, with its results in tmp_path."""

    def call(name: str, *overrides: str) -> ScriptResult:
        where = [
            f"runtime.results_dir={tmp_path / 'results'}",
            f"runtime.cache_dir={cache}",
            *(["runtime.tracker=none"] if name != "search" else []),
        ]
        where = [f"results_dir={tmp_path / 'results'}"] if name in ("figures", "properties") else where
        path = str(ROOT / "scripts" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *where, *overrides])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return ScriptResult(code, captured.out, captured.err)

    return call


@pytest.fixture
def started(tmp_path: Path, cache: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a script as a process in its own session, as `make demo` does, from a folder outside the project."""

    def start(name: str, *overrides: str, results: Path | None = None) -> subprocess.Popen[str]:
        where = [f"runtime.results_dir={results or tmp_path / 'results'}", f"runtime.cache_dir={cache}"]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *where, *overrides],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """A folder on PYTHONPATH with a module `foreign` that leaves a file where it is imported, and its configs/."""
    (tmp_path / "foreign.py").write_text(FOREIGN_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    monkeypatch.chdir(tmp_path)

    def write(path: str, text: str) -> str:
        """Writes configs/<path>.yaml and returns the override by which it is found."""
        file = tmp_path / "configs" / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return f"hydra.searchpath=[file://{tmp_path}/configs]"

    return write
