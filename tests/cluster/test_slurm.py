"""Workers as a Slurm array on two nodes, by the commands of docs/cluster.md: nothing stops them for good."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clusters import LONGER, ROOT, documented, scripts, wait_until

from posbench.config.launchers import SlurmSettings
from posbench.config.schema import RuntimeSettings
from posbench.plan.sweep_file import Assignment
from posbench.sweep import launch_slurm

import soak  # isort: skip - of scripts/, which clusters adds to the path


def nodes() -> str:
    """The nodes of the Slurm on this machine that are up."""
    if not shutil.which("sinfo"):
        return ""
    command = ["sinfo", "--noheader", "--Node", "--states", "idle,mixed,allocated", "--format", "%N"]
    return " ".join(
        sorted(set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()))
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(
        nodes() != "n1 n2", reason="no Slurm of nodes n1 and n2: run tests/cluster/slurm_up.sh as root"
    ),
]
# The documented command, on nodes without GPUs.
HERE = (
    "runtime.slurm.partition=cpu",
    "runtime.slurm.gpus=0",
    "runtime.slurm.cpus=1",
    "runtime.slurm.workers=3",
)
COMMAND = [*documented("runtime=slurm", "runtime.wait=false")[:-1], *HERE]


@pytest.fixture(autouse=True)
def empty_queue(alone):
    """Cancels what a test has left in the queue."""
    yield
    subprocess.run(["scancel", "--user", "root"], check=False)
    for node in ("n1", "n2"):
        subprocess.run(
            ["scontrol", "update", f"nodename={node}", "state=resume"], check=False, capture_output=True
        )


def sweep(results: Path, cache: Path, *settings: str) -> subprocess.Popen[str]:
    return soak.sweep(results, cache, "slurm", *COMMAND, *soak.SETTINGS, *LONGER, *settings)


def restarts() -> int:
    """How often tasks in the queue were requeued."""
    shown = subprocess.run(["scontrol", "show", "job"], capture_output=True, text=True, check=False).stdout
    return sum(int(word.partition("=")[2]) for word in shown.split() if word.startswith("Restarts="))


def test_a_task_is_preempted_and_a_node_is_lost(tmp_path, cache, expected):
    """Submitted and left; then a task gets USR2 and a node goes down; the same command collects the rows of one process."""
    results = tmp_path / "results of a lab"
    output = soak.finish(sweep(results, cache, "runtime.wait=false"))
    assert "jobs are submitted" in output
    wait_until(lambda: list(results.glob("models/*/step-*")))
    assert subprocess.run(
        [sys.executable, "-m", "posbench", "status", results], capture_output=True, text=True, check=True
    ).stdout.startswith("miniature: ")
    task = soak.tasks("RUNNING")[0]
    subprocess.run(["scancel", "--signal=USR2", task], check=True)
    wait_until(lambda: restarts() or not soak.tasks())
    requeued = restarts()
    soak.stop_node("n1")
    output = soak.finish(sweep(results, cache))
    assert soak.rows(results) == expected
    assert requeued or "0 to train" in output
    logs = "".join(path.read_text(errors="replace") for path in results.glob("slurm/**/*.err"))
    assert "Traceback" not in logs, logs
    assert not list(results.glob("locks/*.lease-*"))


def test_five_hundred_workers_are_submitted_within_ten_seconds(tmp_path):
    assignment = Assignment(tmp_path, "0" * 16, "run", frozenset())
    slurm = SlurmSettings(workers=500, gpus=0, cpus=1, sbatch={"begin": "now+1hour"})
    runtime = RuntimeSettings(launcher="slurm", slurm=slurm)
    began = time.monotonic()
    with launch_slurm.workers(assignment, runtime, 2000):
        seconds = time.monotonic() - began
    print(f"500 workers submitted in {seconds:.1f} s")
    assert launch_slurm.in_queue(launch_slurm.job_name(assignment)) == 500
    assert seconds < 10
    with launch_slurm.workers(assignment, runtime, 2000):
        assert launch_slurm.in_queue(launch_slurm.job_name(assignment)) == 500, "they are not submitted twice"


def submitted(script: str, folder: Path, cache: Path, replaced: dict[str, str]) -> None:
    """Submits a batch script of the documentation, with what is for another machine replaced."""
    for old, new in {"posbench sweep": f"{sys.executable} -m posbench sweep", **replaced}.items():
        assert old in script or old == "posbench sweep"
        script = script.replace(old, new)
    lines = [line for line in script.splitlines() if "gpus" not in line]
    (folder / "job.sh").write_text("\n".join(lines))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(["sbatch", "job.sh"], cwd=folder, check=True, env=environment)


def test_a_plain_array(tmp_path, cache, expected):
    settings = " ".join(f"'{one}'" for one in (*soak.SETTINGS, *LONGER, f"runtime.cache_dir={cache}"))
    replaced = {"experiment=extrapolation": settings, "0-7": "0-1", "cpus-per-task=4": "cpus-per-task=1"}
    submitted(scripts()[0], tmp_path, cache, replaced)
    results = tmp_path / "results"
    wait_until(lambda: list(results.glob("models/*/step-*")))
    subprocess.run(["scancel", "--signal=TERM", soak.tasks("RUNNING")[0]], check=True)

    def is_over() -> bool:
        for task in soak.tasks("PENDING"):  # Slurm waits two minutes before it starts a requeued task
            subprocess.run(
                ["scontrol", "update", f"jobid={task}", "starttime=now"], check=False, capture_output=True
            )
        return not soak.tasks()

    wait_until(is_over, 300)
    assert soak.rows(results) == expected


def test_one_model_on_two_nodes(tmp_path, cache):
    small = f"{' '.join(soak.SETTINGS[-1:])} size.n_layers=1 size.d_model=16 size.n_heads=2 train.seq_len=16 train.steps=5 train.batch_size=8 runtime.tracker=none runtime.cache_dir={cache}"
    replaced = {
        "size=base train.seq_len=1024 train.batch_size=512": small,
        "nproc-per-node 8": "nproc-per-node 1",
        "cpus-per-task=32": "cpus-per-task=1",
        "torchrun": f"{sys.executable} -m torch.distributed.run",
    }
    submitted(scripts()[1], tmp_path, cache, replaced)
    wait_until(lambda: list(tmp_path.glob("results/models/*/final")) or not soak.tasks())
    logs = "".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert list(tmp_path.glob("results/models/*/final")), logs
