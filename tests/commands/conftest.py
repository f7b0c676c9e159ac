"""The command line: in this process for what it prints, in a process of its own for what it imports."""

from collections.abc import Callable

import pytest
from hydra.core.global_hydra import GlobalHydra

from posbench.commands import run


@pytest.fixture
def posbench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `posbench` with arguments; its status, stdout and stderr."""
    monkeypatch.setattr("sys.argv", ["posbench"])  # restored after Hydra's arguments have replaced it

    def call(*arguments: str) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        capsys.readouterr()
        status = run(arguments)
        return status, *capsys.readouterr()

    return call
