"""The pages whose files and commands a reader follows from top to bottom, run as they are written."""

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from documentation import ROOT, RUNTIME, Shell, blocks, commands_of


@pytest.fixture
def shell(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    where = [f"runtime.cache_dir={cache}", "runtime.launcher=inline", "runtime.tracker=none"]
    shell = Shell(tmp_path, monkeypatch, dict.fromkeys(RUNTIME, where))
    yield shell
    shell.forget()


def follow(page: str, shell: Shell) -> None:
    """Writes every file and runs every command of a page."""
    for block in blocks(ROOT / "docs" / page):
        if block.file:
            shell.write(block)
        elif block.language == "bash":
            for command in commands_of(block):
                shell.run(command)


@pytest.mark.slow
def test_everything_of_ones_own(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    follow("adding.md", shell)
    printed = capsys.readouterr().out
    assert "left out: root + yarn" in printed
    results = shell.folder / "results"
    rows = pd.read_parquet(results / "root" / "rows.parquet")
    assert set(rows.loc[rows["scheme"] == "root", "extension"]) == {"none", "rerope"}
    table = (results / "root" / "tables" / "perplexity-fixed_targets-bits_per_byte.md").read_text()
    assert "root + rerope" in table
    assert (
        "rope + sharper"
        in (results / "sharper" / "tables" / "perplexity-fixed_targets-bits_per_byte.md").read_text()
    )
    assert (results / "echo" / "tables" / "echo-echo-token_accuracy.md").is_file()
    assert (results / "longest" / "figures" / "longest.png").is_file()
