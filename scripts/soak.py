"""Kills sweeps at random moments, on every launcher that is here, and compares their rows with undisturbed ones.

    python scripts/soak.py --minutes 20

After each kill the same command continues. At the end of a sweep its rows must equal those of an undisturbed sweep to
the bit, no finished file may have been written twice, and nothing may be left that blocks. Prints what was survived.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

POSBENCH = [sys.executable, "-m", "posbench"]
# Small models and few cells: most of the time is a start, a checkpoint or the end of a job.
SETTINGS = (
    "experiment=miniature",
    "grid.scheme=[nope,rope]",
    "grid.extension=[pi]",
    "figures=[]",
    "train.steps=60",
    "~evaluate.prefix",
    "~evaluate.attention",
    "runtime.device=cpu",
)
LAUNCHERS = {
    "inline": ("runtime.launcher=inline",),
    "local": ("runtime.launcher=local", "runtime.num_workers=2"),
    "slurm": ("runtime=slurm", "runtime.slurm.gpus=0", "runtime.slurm.cpus=1", "runtime.slurm.workers=2"),
    "ray": ("runtime=ray", "runtime.ray.gpus=0", "runtime.ray.workers=2"),
}
STOPPED = "stopped; the same command continues from here"
PATIENCE = 600.0  # seconds without an end
START_SECONDS = 1.0  # of the interpreter, before any code of posbench runs


class FaultError(Exception):
    """A sweep that did not survive."""


def sweep(results: Path, cache: Path, launcher: str, *settings: str) -> subprocess.Popen[str]:
    """Starts a sweep in a session of its own."""
    where = (f"runtime.results_dir={results}", f"runtime.cache_dir={cache}")
    given = (*SETTINGS, *LAUNCHERS[launcher], *settings, *where)
    overrides = {one.partition("=")[0]: one for one in given}  # the last of each
    return subprocess.Popen(
        [*POSBENCH, "sweep", *overrides.values()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a sweep to end and returns its output; raises FaultError if it failed."""
    output, _ = process.communicate(timeout=PATIENCE)
    if process.returncode or "Traceback" in output:
        raise FaultError(f"status {process.returncode}:\n{output}")
    return output


def rows(results: Path) -> bytes:
    """The rows of the experiment."""
    return (results / "miniature" / "rows.parquet").read_bytes()


def finished(results: Path) -> dict[str, int]:
    """When each finished file was written."""
    paths = [*results.glob("models/*/final/metadata.json"), *results.glob("cells/*.parquet")]
    return {str(path): path.stat().st_mtime_ns for path in paths if path.exists()}


def children(process: int) -> list[int]:
    """The processes below a process."""
    found, listed = (
        [],
        subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True),
    )
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    parents = {process}
    while parents:
        below = [pid for pid, parent in pairs if parent in parents]
        found += below
        parents = set(below)
    return found


def strike(process: subprocess.Popen[str], launcher: str, draw: random.Random) -> str:
    """Kills or stops a part of a sweep, or all of it, and returns what it did."""
    kinds = ["kill all", "SIGTERM", "SIGINT"] + {
        "inline": [],
        "local": ["kill a worker"] * 3,
        "ray": ["kill a worker"] * 3,
        "slurm": ["kill a task", "pre-empt a task", "requeue a task", "kill a node"] * 2,
    }[launcher]
    kind = draw.choice(kinds)
    if kind in ("kill all", "SIGTERM", "SIGINT"):
        number = {"kill all": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}[kind]
        os.killpg(process.pid, number)
        if launcher == "slurm" and kind == "kill all":  # else the workers finish by themselves
            subprocess.run(["scancel", "--signal=KILL", *tasks()], check=False, capture_output=True)
    elif kind == "kill a worker":
        below = children(process.pid)
        if launcher == "ray":
            names = subprocess.run(
                ["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True
            ).stdout
            workers = [int(line.split()[0]) for line in names.splitlines() if "ray::RayWorker" in line]
            below = [pid for pid in below if pid in workers]
        if not below:
            return ""
        victim = draw.choice(below)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return ""
    elif kind == "kill a node":
        stop_node(draw.choice(("n1", "n2")))
    elif running := tasks("RUNNING"):
        task = draw.choice(running)
        command = {
            "kill a task": ["scancel", "--signal=KILL", task],
            "pre-empt a task": ["scancel", "--signal=USR2", task],
            "requeue a task": ["scontrol", "requeue", task],
        }[kind]
        subprocess.run(command, check=False, capture_output=True)
    else:
        return ""
    return kind


def tasks(state: str = "") -> list[str]:
    """The tasks of posbench in the queue of Slurm."""
    command = [
        "squeue",
        "--noheader",
        "--array",
        "--format",
        "%i %j",
        *(["--states", state] if state else []),
    ]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.split()[1].startswith("posbench")]


def stop_node(node: str, seconds: float = 3.0) -> None:
    """Kills all jobs of a Slurm node by taking it down, and brings it back."""
    update = ["scontrol", "update", f"nodename={node}"]
    subprocess.run([*update, "state=down", "reason=soak"], check=True)
    time.sleep(seconds)
    # A node that has registered again by itself cannot be resumed.
    subprocess.run([*update, "state=resume"], check=False, capture_output=True)


def survive(
    results: Path,
    cache: Path,
    launcher: str,
    expected: bytes,
    kills: int,
    draw: random.Random,
    seconds: float,
) -> Counter[str]:
    """Runs one sweep to its end through a number of kills, and returns what happened.

    Args:
        expected: the rows of an undisturbed sweep.
        seconds: that an undisturbed sweep takes; kills fall within them.

    Raises:
        FaultError: if the sweep did not survive.
    """
    counts: Counter[str] = Counter()
    written: dict[str, int] = {}
    for _ in range(kills):
        process = sweep(results, cache, launcher)
        try:
            process.wait(draw.uniform(START_SECONDS, START_SECONDS + seconds))
        except subprocess.TimeoutExpired:
            held = len(list(results.glob("locks/*.lease-*")))
            if kind := strike(process, launcher, draw):
                counts[kind] += 1
                counts["kills"] += 1
                counts["jobs redone"] += held if kind == "kill all" else min(held, 1)
            if kind in ("kill all", "SIGTERM", "SIGINT"):
                output, _ = process.communicate(timeout=PATIENCE)
                status = {"kill all": -9, "SIGTERM": 143, "SIGINT": 130}[kind]
                lines = [line for line in output.splitlines() if line == STOPPED]
                ended_before = process.returncode == 0 or "tables and figures in" in output
                if not ended_before and (
                    process.returncode != status or len(lines) != (status > 0) or "Traceback" in output
                ):
                    raise FaultError(f"{kind} ended with status {process.returncode}:\n{output}") from None
        if process.poll() is None:
            finish(process)
        elif process.stdout:
            process.stdout.close()
        now = finished(results)
        if again := [path for path, when in written.items() if now.get(path, when) != when]:
            raise FaultError(f"written twice: {again}")
        written |= now
    finish(sweep(results, cache, launcher))
    now = finished(results)
    if again := [path for path, when in written.items() if now.get(path) != when]:
        raise FaultError(f"written twice: {again}")
    if rows(results) != expected:
        raise FaultError(f"the rows in {results} differ from those of an undisturbed sweep")
    left = [*results.rglob("*.tmp"), *results.rglob("*.damaged-*"), *results.glob("locks/*.lease-*")]
    if left and launcher != "slurm":
        raise FaultError(f"left over: {left}")
    counts["sweeps"] += 1
    counts["rows compared"] += pq.read_metadata(results / "miniature" / "rows.parquet").num_rows
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    parser.add_argument("--kills", type=int, default=6, help="of one sweep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder of tokenized corpora, to save their making")
    given = parser.parse_args()
    launchers = [name for name in given.launchers if name != "slurm" or shutil.which("sbatch")]
    draw = random.Random(given.seed)
    totals: dict[str, Counter[str]] = {name: Counter() for name in launchers}
    with tempfile.TemporaryDirectory(prefix="posbench soak ") as folder:  # a path with spaces
        root, cache = Path(folder), given.cache or Path(folder) / "cache"
        finish(sweep(root / "reference", cache, "inline"))
        expected, number = rows(root / "reference"), 0
        duration = {}
        for name in launchers:
            began = time.monotonic()
            finish(sweep(root / name, cache, name))
            duration[name] = time.monotonic() - began
            if rows(root / name) != expected:
                raise FaultError(f"{name} has other rows than inline")
        end = time.monotonic() + 60 * given.minutes
        while time.monotonic() < end:
            name = launchers[number % len(launchers)]
            number += 1
            results = root / f"sweep {number}"
            totals[name] += survive(results, cache, name, expected, given.kills, draw, duration[name])
            shutil.rmtree(results)
            print(f"{name}: {dict(totals[name])}", flush=True)
    for name, counts in totals.items():
        print(f"{name}: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
