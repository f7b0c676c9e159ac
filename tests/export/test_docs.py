"""docs/export.md: its commands and its Python, in order, as they are written."""

import glob
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TASK = {
    "task": "my_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "my_tasks/docs.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc"}],
}


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(posbench, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("texts").mkdir()
    for index in range(60):
        Path("texts", f"{index}.txt").write_text(
            f"{index} gulls cried over the calm sea and the old boat. " * 12
        )
    Path("my_tasks").mkdir()
    docs = [{"question": "the calm", "choices": [" sea", " boat"], "gold": n % 2} for n in range(4)]
    Path("my_tasks", "docs.jsonl").write_text("\n".join(map(json.dumps, docs)))
    Path("my_tasks", "task.yaml").write_text(yaml.safe_dump(TASK))
    ran = []
    for language, text in BLOCKS:
        if language == "python":
            run(sys.executable, "-c", text)
        for line in text.splitlines() if language == "bash" else ():
            program, *words = [found for word in shlex.split(line) for found in glob.glob(word) or [word]]
            ran.append(program)
            if program == "posbench":
                status, _, err = posbench(*words)
                assert status == 0, f"{line}\n{err}"
            else:
                run(str(Path(sys.executable).with_name(program)), *words)
    assert ran.count("posbench") >= 7
    assert list(Path("results/leaderboard/tables").glob("*.md"))


def run(*words: str) -> None:
    """Runs a program; its output is in the message if it fails."""
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
