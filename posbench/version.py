"""The version of posbench."""

import subprocess
from pathlib import Path

__version__ = "0.1.0"


def source_commit() -> str:
    """Returns the commit of the clone that posbench runs from, ending in -dirty after changes; "" outside a clone."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
