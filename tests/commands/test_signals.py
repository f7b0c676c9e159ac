"""Fault: SIGINT or SIGTERM gave a traceback or no word while modules were imported, and was ignored while it drew."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posbench.errors import ConfigError
from posbench.runtime.torchrun import check_environment

# The body of a command, which prints "ready" and is then interrupted.
READY = "print('ready', flush=True); time.sleep(30)"
BODIES = {
    "at work": READY,
    "in an import": "import slow_import",
    "in a library that catches everything": f"try: {READY}\n    except BaseException: time.sleep(30)",
    "between jobs": f"with signals.interrupts(): {READY}",
    "in a job": "with signals.stop_flag() as stop:\n      print('ready', flush=True)\n      while not stop(): time.sleep(.01)",
    "in a callback": f"class C:\n      def __del__(self): {READY}\n    C(); time.sleep(30)",
}
PROGRAM = """
import sys, time
from posbench import commands
from posbench.runtime import signals
def run(arguments):
    {body}
    return 0
commands.run = run
commands.main()
"""

TWO_RANKS = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29400"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("body", BODIES)
def test_a_signal_ends_a_command_with_one_line(number: int, status: int, body: str, tmp_path: Path) -> None:
    (tmp_path / "slow_import.py").write_text(f"import time\n{READY}\n")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=BODIES[body]), "train"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert (process.returncode, stderr) == (status, "stopped; the same command continues from here\n")


@pytest.mark.parametrize("command", ["properties", "benchmark", "gpu-check", "figures", "--version", ""])
def test_a_command_that_starts_over_does_not_say_that_it_continues(command: str) -> None:
    """Fault: a stopped benchmark printed "the same command continues from here", although it starts over."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=READY), *filter(None, [command])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (143, "stopped\n")


@pytest.mark.parametrize("delay", [0.5, 1.5])
def test_a_sweep_that_starts_ends_with_one_line(delay: float, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "posbench", "sweep", "experiment=miniature"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    lines = [line for line in stderr.splitlines() if "building the corpus" not in line]
    assert (process.returncode, lines) == (143, ["stopped; the same command continues from here"])


def test_a_rank_that_has_printed_its_error_prints_no_second_line() -> None:
    """Fault: the SIGTERM of torchrun, sent after another rank was killed, came between the error and the exit."""
    body = "signals.may_print = lambda line: True; signals.report_error('lost another rank'); print('ready', flush=True); time.sleep(30)"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), **TWO_RANKS},
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (143, "error: lost another rank\n")


@pytest.mark.parametrize(
    "variables",
    [{"RANK": "1"}, {"RANK": "x"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "0"}],
)
def test_some_variables_of_torchrun_do_not_change_errors(variables: dict[str, str]) -> None:
    """Fault: RANK=1 suppressed every error line, and WORLD_SIZE without RANK was a traceback of every command."""
    found = subprocess.run(
        [sys.executable, "-m", "posbench", "list", "ropes"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("error: argument group: invalid choice: 'ropes'")
    assert found.stderr.count("\n") == 1


def test_several_processes_without_their_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(
        ConfigError, match=r"WORLD_SIZE is '2' and RANK, MASTER_ADDR.*: start the command with torchrun"
    ):
        check_environment()
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_environment()
