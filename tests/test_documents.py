"""What the documents say is so: their commands compose, and their lists are those of configs/."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python scripts/")]


def test_there_are_commands():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command, tmp_path):
    words = [word for word in shlex.split(command, comments=True)[1:] if word != "--multirun"]
    words = [re.sub(r"^scheme=(\w+),\w+$", r"scheme=\1", word) for word in words]
    asked = [sys.executable, str(ROOT / words[0]), *words[1:], "--cfg", "job"]
    ended = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("group", ["scheme", "extension", "ensemble", "task", "size", "data", "experiment"])
def test_every_choice_is_listed(group):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{group}`"))
    listed = set(re.findall(r"`([\w]+)`", row)) - {group}
    here = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")} - {"miniature"}
    assert here <= listed, f"README's table lacks {sorted(here - listed)}"


def test_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), f"{name} links {target}"
