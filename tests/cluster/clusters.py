"""Sweeps by the commands of docs/cluster.md."""

import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))  # not before packages: lm-eval imports one named evaluate

# Trainings of a few seconds, so that one can be struck.
LONGER = ("train.steps=600", "train.val_interval=200", "runtime.checkpoint_interval=50")


def documented(*words: str) -> list[str]:
    """The overrides of the first command of docs/cluster.md that contains some words."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    lines = [line for line in page.splitlines() if all(word in line for word in ("posbench sweep", *words))]
    return shlex.split(lines[0])[2:]


def scripts() -> list[str]:
    """The batch scripts of docs/cluster.md."""
    return re.findall(r"```sbatch\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)


def wait_until(reached: Callable[[], object], seconds: float = 300.0) -> None:
    """Waits until a function returns something true."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "never reached"
        time.sleep(0.05)
