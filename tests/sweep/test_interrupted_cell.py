"""A signal ends a cell after the prompt that is being read: long cells took minutes until the line was printed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SETTINGS = (
    *("experiment=miniature", "grid.scheme=[nope]", "grid.extension=[]", "figures=[]", "train.steps=2"),
    *("runtime.launcher=inline", "runtime.device=cpu"),
)
SLOW = """
import time
from posbench.commands import main
from posbench.lm.native import NativeLM

run = NativeLM.run

def slow(self, prompts, score):
    for found in run(self, prompts, score):
        print("read", flush=True)
        time.sleep(0.5)
        yield found

NativeLM.run = slow
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_long_cell(tmp_path: Path, number: int) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), "sweep", *SETTINGS]
    process = subprocess.Popen(
        [*command, f"runtime.results_dir={tmp_path / 'results'}", f"runtime.cache_dir={tmp_path / 'cache'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout
    while (line := process.stdout.readline()) and line != "read\n":
        pass
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == "stopped; the same command continues from here"
    assert "Traceback" not in errors
    assert time.monotonic() - began < 15  # of 30 for the rest of the sweep; 6 on a loaded machine
