"""Every command of README.md and docs/ is run: a few pages as they are written, the others with tiny models.

A block that says `no-run: REASON` needs a GPU, a cluster or hours; its settings compose, and what it names exists.
"""

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "lm"))
from documentation import PAGES, ROOT, Shell, blocks, write_questions
from pretrained_models import saved

AS_WRITTEN = ("docs/adding.md", "docs/python.md", "docs/export.md")  # the last by tests/export/test_docs.py
OTHERS = [path for page in PAGES if (path := page.relative_to(ROOT).as_posix()) not in AS_WRITTEN]


@pytest.fixture
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    shells = []

    def make(**options: bool) -> Shell:
        shells.append(Shell(tmp_path, monkeypatch, cache, **options))
        return shells[0]

    yield make
    for shell in shells:
        shell.forget()


@pytest.mark.slow
def test_everything_of_ones_own(folder, capsys: pytest.CaptureFixture[str]) -> None:
    shell = folder(tiny=False)
    shell.follow("docs/adding.md")
    assert "left out: root + yarn" in capsys.readouterr().out
    results = shell.folder / "results"
    rows = pd.read_parquet(results / "root" / "rows.parquet")
    assert set(rows.loc[rows["scheme"] == "root", "extension"]) == {"none", "rerope"}
    loss = "tables/perplexity-fixed_targets-bits_per_byte.md"
    assert "root + rerope" in (results / "root" / loss).read_text()
    assert "rope + sharper" in (results / "sharper" / loss).read_text()
    assert (results / "echo" / "tables" / "echo-echo-token_accuracy.md").is_file()
    assert (results / "longest" / "figures" / "longest.png").is_file()


@pytest.mark.slow
def test_use_from_python(folder, capsys: pytest.CaptureFixture[str]) -> None:
    shell = folder(tiny=False)
    shell.follow("docs/python.md")
    printed = capsys.readouterr().out
    assert "nats per byte" in printed
    assert "rows in results" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in OTHERS if any(block.commands for block in blocks(ROOT / page))]
)
def test_commands(page: str, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shell = folder(tiny=True, sweeps=page == "docs/tutorial.md")
    text = (ROOT / page).read_text()
    if "hugging_face" in text:
        saved(shell.pretrained, "llama")
        (shell.folder / "texts").mkdir()
        for name in range(12):
            lines = (f"def f{name}(x):\n    return x + {line}\n" for line in range(400))
            (shell.folder / "texts" / f"{name}.txt").write_text("".join(lines))
        (shell.folder / "books").symlink_to("texts")
        write_questions(shell.folder / "nq-open-20_total_documents_gold_at_0.jsonl.gz")
    shell.follow(page)


def test_the_tutorial_ends_with_its_figure() -> None:
    """What the page shows exists: the published figure of the same name as the one that the reader has drawn."""
    assert "figures=[fixed_targets" in (ROOT / "docs" / "tutorial.md").read_text()
    assert (ROOT / "results" / "published" / "demo" / "figures" / "fixed_targets.png").is_file()
