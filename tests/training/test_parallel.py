"""Training and evaluation by two processes: the losses and rows of one process, up to rounding."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from posbench.errors import ConfigError
from posbench.runtime.distributed import World, check
from posbench.runtime.signals import CONTINUES

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# The order in which gradients are summed differs.
TOLERANCE = 1e-4
TINY = [
    "scheme=alibi",
    *("size.name=two", "size.n_layers=1", "size.d_model=16", "size.n_heads=2"),
    *(
        "train.seq_len=16",
        "train.steps=24",
        "train.batch_size=8",
        "train.val_interval=8",
        "train.val_batches=3",
    ),
    *("runtime.tracker=none", "runtime.device=cpu", "runtime.checkpoint_interval=7"),
]

# Trains until one rank runs out of memory, as on a device that is shared.
OUT_OF_MEMORY = f"""
import os, runpy, torch
from posbench.training.trainer import Trainer

step = Trainer.step


def fail(self, index):
    if os.environ["RANK"] == "1" and index == 20:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return step(self, index)


Trainer.step = fail
runpy.run_path({str(ROOT / "scripts" / "train.py")!r}, run_name="__main__")
"""


def started(launch: list[str], script: str, *settings: str) -> subprocess.Popen[str]:
    own = [one for one in settings if script != "evaluate" or "checkpoint" not in one]
    command = [*launch, str(ROOT / "scripts" / f"{script}.py"), *own]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def ended(launch: list[str], script: str, *settings: str) -> str:
    process = started(launch, script, *settings)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def log_history(results: Path) -> list[dict[str, float]]:
    (path,) = results.glob("models/*/final/metadata.json")
    return json.loads(path.read_text())["log_history"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder for results and one for token shards."""
    return tmp_path_factory.mktemp("parallel"), tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_the_losses_and_rows_of_one_process(folders: tuple[Path, Path]) -> None:
    folder, cache = folders
    found = {}
    for name, launch in {"one": [sys.executable], "ddp": TORCHRUN}.items():
        where = [f"runtime.results_dir={folder / name}", f"runtime.cache_dir={cache}"]
        ended(launch, "train", *TINY, *where, "train.grad_accum_steps=2")
        found[name] = log_history(folder / name)
    for one, other in zip(found["one"], found["ddp"], strict=True):
        assert one.keys() == other.keys()
        assert all(abs(one[key] - other[key]) < TOLERANCE for key in one), (one, other)
    task = [
        "task=fixed_targets",
        "evaluation.length_multiples=[1,4]",
        "task.build.num_examples=5",
        "train.grad_accum_steps=2",
    ]
    rows = []
    for launch in ([sys.executable], TORCHRUN):
        where = [f"runtime.results_dir={folder / 'ddp'}", f"runtime.cache_dir={cache}"]
        output = ended(launch, "evaluate", *TINY, *where, *task)
        assert output.count("Perplexity per token over") == 1, "only rank 0 prints"
        cells = sorted((folder / "ddp" / "cells").glob("*.parquet"))
        rows.append(pd.concat([pd.read_parquet(path) for path in cells], ignore_index=True))
        for path in cells:
            path.unlink()
    pd.testing.assert_frame_equal(rows[0], rows[1], rtol=1e-6)


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_the_next_continues(folders: tuple[Path, Path]) -> None:
    """Fault: torchrun's SIGTERM to rank 0 could come before the error of its collective, or between error and exit.

    Rank 0 says that it lost a rank, or that it was stopped; never both, never neither.
    """
    folder, cache = folders
    where = [f"runtime.results_dir={folder / 'killed'}", f"runtime.cache_dir={cache}"]
    process = started(TORCHRUN, "train", *TINY, *where, "train.steps=400", "train.val_interval=200")
    deadline = time.monotonic() + 240
    while not any((folder / "killed").glob("models/*/step-*/metadata.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    (line,) = (line for line in output.splitlines() if line.startswith(("error: ", "stopped")))
    lost = "lost another rank" in line and "start the same command again" in line
    assert lost or line == CONTINUES, output
    again = ended(TORCHRUN, "train", *TINY, *where, "train.steps=400", "train.val_interval=200")
    assert "Traceback" not in again
    assert log_history(folder / "killed")[-1]["step"] == 400


@pytest.mark.slow
def test_a_rank_without_memory_is_named_and_the_next_run_continues(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, cache = folders
    where = [f"runtime.results_dir={folder / 'short'}", f"runtime.cache_dir={cache}"]
    (tmp_path / "oom.py").write_text(OUT_OF_MEMORY)
    process = started(TORCHRUN, str(tmp_path / "oom"), *TINY, *where)
    output, _ = process.communicate(timeout=120)  # no rank waits for a timeout of the process group
    assert process.returncode != 0
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        "error: rank 1 of 2: out of memory in training alibi, two, length 16, seed 0, 4 x 16 tokens at once: "
        "give train.grad_accum_steps=2 or a smaller train.batch_size or train.dtype=bfloat16; with more memory the same "
        "command continues from the last checkpoint"
    ], output
    assert "[rank" not in output, "no traceback of a rank"
    assert [path.name for path in (folder / "short").glob("models/*/*")] == ["step-00000014"]
    ended(TORCHRUN, "train", *TINY, *where)
    assert log_history(folder / "short")[-1]["step"] == 24


# A mistake on one rank alone: the rank, and what it runs first.
MISTAKES = {
    "in the settings": (
        1,
        """
from posbench.commands import checks
from posbench.errors import ConfigError

def fail(*_):
    raise ConfigError("words of rank 1")

checks.check_train = fail
""",
    ),
    "in the plan": (
        0,
        """
from posbench.errors import DataError
from posbench.plan import plan

def fail(settings):
    raise DataError("words of rank 0")

plan.plan_model = fail
""",
    ),
    "in a job": (
        1,
        """
from posbench.errors import DataError
from posbench.sweep.run_job import JobRunner

def fail(worker, model):
    raise DataError("words of rank 1")

JobRunner.corpus = fail
""",
    ),
}


def run_on_ranks(script: Path, results: Path, cache: Path, *settings: str) -> str:
    """Runs a script that fails on two ranks; returns the one line that is printed."""
    process = started(
        TORCHRUN,
        str(script),
        *TINY,
        f"runtime.results_dir={results}",
        f"runtime.cache_dir={cache}",
        *settings,
    )
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "[rank" not in output, "no traceback of a rank"
    (line,) = (line for line in output.splitlines() if line.startswith(("error: ", "stopped")))
    return line


@pytest.mark.slow
@pytest.mark.parametrize("where", MISTAKES)
def test_a_mistake_on_one_rank_ends_all_with_its_words(
    where: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Fault: a mistake on one rank alone was never printed, or left the others waiting for half an hour."""
    rank, code = MISTAKES[where]
    (tmp_path / "one.py").write_text(
        f"import os, runpy\nif os.environ['RANK'] == '{rank}':\n    pass\n"
        + "".join(f"    {line}\n" for line in code.splitlines())
        + f"runpy.run_path({str(ROOT / 'scripts' / 'train.py')!r}, run_name='__main__')\n"
    )
    assert f"words of rank {rank}" in run_on_ranks(tmp_path / "one", tmp_path, folders[1])


@pytest.mark.slow
def test_a_mistake_on_every_rank_is_printed_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert "alibo" in run_on_ranks(ROOT / "scripts" / "train", tmp_path, folders[1], "scheme=alibo")


def test_a_number_of_processes_that_does_not_divide_the_batch() -> None:
    with pytest.raises(
        ConfigError,
        match=r"train.batch_size 8 in 2 parts cannot be divided among 3 processes: start 1, 2, 4 of them",
    ):
        check(8, 2, 3)
    check(8, 2, 4)


def test_shards_cover_all_items_once() -> None:
    for count in (0, 1, 5, 8):
        parts = [list(range(count))[World(rank, 3).shard(count)] for rank in range(3)]
        assert [one for part in parts for one in part] == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
