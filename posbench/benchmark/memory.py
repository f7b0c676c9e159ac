"""Peak memory of the process as the operating system reports it, each measurement in a process of its own.

    python -m posbench.benchmark.memory logits 8192 chunked
    python -m posbench.benchmark.memory read rope 16384
    python -m posbench.benchmark.memory train rope 16384

prints the largest growth of the process in bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from posbench.benchmark.line import Line
from posbench.benchmark.models import BenchmarkShape, as_lm, ours, with_scheme
from posbench.benchmark.paired import FEW_PAIRS, Ratio, of_pairs, time_paired
from posbench.benchmark.steps import components_of
from posbench.config import hydra_app
from posbench.errors import LengthError, UndefinedError
from posbench.lm.interface import Prompt
from posbench.model.gpt import GPT

STATUS = Path("/proc/self/status")
VOCABULARY, ROWS, TIMED_ROWS = 50257, 32768, 4096
HEAD = BenchmarkShape(n_layers=1, d_model=64, n_heads=2, seq_len=256, batch_size=1, vocab_size=VOCABULARY)
READER = BenchmarkShape(n_layers=2, d_model=32, n_heads=2, seq_len=256, batch_size=1)
LEARNER = BenchmarkShape(n_layers=1, d_model=32, n_heads=2, seq_len=256, batch_size=1)
SHORT, LONG = 4096, 8192
NOT_LINUX = "peak memory is read from /proc, which this system does not have"


def logits(seconds: float) -> Iterator[Line]:
    """Compares scores of many targets over a large vocabulary: in chunks of logits, and with all logits at once."""
    chunked, full = head_work(TIMED_ROWS)
    peer = "all logits at once, then cross_entropy"
    yield Line(
        f"scores of {TIMED_ROWS} targets of {VOCABULARY}",
        peer,
        1.0,
        time_paired(chunked, full, seconds, warm=1, least=FEW_PAIRS),
    )
    if not STATUS.exists():
        yield Line("memory of scores", peer, 1 / 15, None, "MB", skipped=NOT_LINUX)
        return
    rows = ROWS
    while rows > TIMED_ROWS and 2.5 * 4 * rows * VOCABULARY > available_bytes():
        rows //= 2  # too much for the memory of this machine
    ratio = ratio_of(["logits", str(rows), "chunked"], ["logits", str(rows), "full"])
    yield Line(f"peak memory of scores of {rows} targets of {VOCABULARY}", peer, 1 / 15, ratio, "MB", 1.0)


def lengths(seconds: float) -> Iterator[Line]:
    """Compares peak memory at twice the length: in evaluation, for a scheme of each structure but whole rows, and in a
    training step.
    """
    peer = f"{SHORT} tokens"
    if not STATUS.exists():
        yield Line(f"peak memory at {LONG} tokens", peer, 2.05, None, "MB", 1.0, NOT_LINUX)
        return
    found = structures()
    for name, components in found.items():
        ratio = ratio_of(["read", name, str(LONG)], ["read", name, str(SHORT)])
        what = (
            f"peak memory of evaluation at {LONG} tokens, {name} ({', '.join(components) or 'nothing added'})"
        )
        yield Line(f"{what}: {READER.n_layers} layers, width {READER.d_model}", peer, 2.05, ratio, "MB", 1.0)
    # On the CPU, relative values are trained by `dense`, by chunks of rows.
    by_rows = next(name for name, components in found.items() if "values by pair" in components)
    ratio = ratio_of(["train", by_rows, str(LONG)], ["train", by_rows, str(SHORT)])
    what = f"peak memory of a training step by chunks of rows at {LONG} tokens, {by_rows}"
    yield Line(f"{what}: {LEARNER.n_layers} layer, width {LEARNER.d_model}", peer, 2.05, ratio, "MB", 1.0)


def structures() -> dict[str, tuple[str, ...]]:
    """The first scheme of each structure -> its components."""
    found: dict[tuple[str, ...], str] = {}
    for name, content in hydra_app.load_group("scheme").items():
        make = with_scheme(content["build"])
        model = make(READER)[0]
        assert isinstance(model, GPT)
        try:
            model.scheme.check(LONG)
        except (UndefinedError, LengthError):
            continue
        components = tuple(sorted(components_of(make, READER)))
        if "whole rows" not in components:
            found.setdefault(components, name)
    return {name: components for components, name in found.items()}


def ratio_of(ours: list[str], theirs: list[str]) -> Ratio:
    """The ratio of two measurements in megabytes, each named by the arguments of `main`."""
    return of_pairs(np.array([[peak_growth(ours) / 1e6, peak_growth(theirs) / 1e6]]))


def peak_growth(arguments: list[str]) -> int:
    """Runs a measurement in a process of its own and returns its largest growth in bytes."""
    # Freed memory returns to the system at once, so that the peak counts only what is in use at one time.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "posbench.benchmark.memory", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MemoryError(f"{' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def available_bytes() -> int:
    """Available memory of the system in bytes."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


def memory_of(field: str) -> int:
    """Memory of this process in bytes: VmRSS is the current size, VmHWM the peak."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return 1024 * int(lines[field].split()[0])


def head_work(rows: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Two functions that score random hidden states: NativeLM's chunks, and all logits at once."""
    lm = as_lm(ours(HEAD)[0], HEAD)
    hidden = torch.randn(1, rows, HEAD.d_model)
    target = torch.randint(VOCABULARY, (1, rows))

    @torch.inference_mode()
    def chunked() -> object:
        return lm.score_targets(hidden, target)

    @torch.inference_mode()
    def full() -> object:
        logits = lm.model.head(hidden[0])
        return F.cross_entropy(logits, target[0], reduction="none"), logits.argmax(-1)

    return chunked, full


def read_work(name: str, length: int) -> Callable[[], object]:
    """A function that evaluates one prompt of `length` tokens under a scheme."""
    lm = as_lm(with_scheme(hydra_app.load_group("scheme")[name]["build"])(READER)[0], READER)
    text = np.arange(length + 1) % 256
    return lambda: list(lm.loglikelihood([Prompt(text[:-64], text[None, -64:], 64)]))


def train_work(name: str, length: int) -> Callable[[], object]:
    """A function that computes loss and gradients of `length` tokens under a scheme."""
    model = with_scheme(hydra_app.load_group("scheme")[name]["build"])(LEARNER)[1]
    ids = torch.arange(length + 1)[None] % 256

    def step() -> None:
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()

    return step


def main(what: str, first: str, second: str) -> None:
    """Prints the growth of this process in one measurement, after a small one that loads libraries."""
    torch.set_num_threads(1)
    if what == "logits":
        work, warm = (pick(head_work(int(first)), second), pick(head_work(64), second))
    else:
        of = read_work if what == "read" else train_work
        work, warm = of(first, int(second)), of(first, 256)
    warm()
    before = memory_of("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError:
        before = max(before, memory_of("VmHWM"))
    work()
    print(json.dumps(memory_of("VmHWM") - before))


def pick(work: tuple[Callable[[], object], Callable[[], object]], which: str) -> Callable[[], object]:
    """The first function for "chunked", else the second."""
    return work[0] if which == "chunked" else work[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
