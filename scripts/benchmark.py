"""Time posbench beside its peers on one thread; exit status 1 where a line misses its goal.

    python scripts/benchmark.py --only retrieval prefix
    python scripts/benchmark.py --only schemes --scheme rope alibi   # what a step of a scheme costs

A run of some lines is printed and not stored. The group `gpu` has a table of its own, stored where it ran; where
there is no GPU its lines are listed as skipped.
"""

import argparse
import logging
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from posbench.benchmark.line import TOLERANCE, Line
from posbench.benchmark.lines import LINES
from posbench.errors import PosbenchError
from posbench.files import write_text

GPU = "gpu"  # the group that needs one
RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmark"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="time for each line, which takes nine pairs at least, fewer of what is slow or one of many (default: %(default)s)",
    )
    parser.add_argument("--only", nargs="+", choices=LINES, default=[], help="these groups of lines")
    parser.add_argument(
        "--scheme", nargs="+", default=[], help="with --only schemes: these of configs/scheme"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default: results/benchmark)")
    settings = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("posbench").setLevel(logging.INFO)  # which backend of SDPA was chosen
    if settings.scheme and settings.only != ["schemes"]:
        parser.error("--scheme goes with --only schemes")
    torch.set_num_threads(1)
    groups = settings.only or list(LINES)
    parts = {
        "cpu": [group for group in groups if group != GPU],
        "gpu": [group for group in groups if group == GPU],
    }
    passed = True
    for place, asked in parts.items():
        if not asked:
            continue
        try:
            lines = list(measured(asked, settings.scheme, settings.seconds))
        except PosbenchError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        frame = table(lines)
        text = markdown(frame, place)
        ran = torch.cuda.is_available() if place == "gpu" else not settings.only
        if ran:
            write_text(settings.results / f"{place}.csv", frame.to_csv(index=False))
            write_text(settings.results / f"{place}.md", text)
        print(text)
        passed = passed and all(line.passed for line in lines)
    return 0 if passed else 1


def measured(groups: Sequence[str], schemes: Sequence[str], seconds: float) -> Iterable[Line]:
    """The lines of some groups, told as they come."""
    for group in groups:
        measure: Callable[..., Iterator[Line]] = LINES[group]
        measure = partial(measure, names=schemes) if schemes else measure
        began = time.monotonic()
        for line in measure(seconds):
            found = line.result if line.ratio is None else f"{line.ratio.median:.3f}"
            took = time.monotonic() - began
            print(f"{line.what} | {line.peer} | {found} | {took:.0f} s", file=sys.stderr, flush=True)
            yield line
            began = time.monotonic()


def table(lines: Iterable[Line]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "what": line.what,
            "peer": line.peer,
            **numbers(line),
            "goal": round(line.goal, 3),
            "result": line.result,
        }
        for line in lines
    )


def numbers(line: Line) -> dict[str, float | str | None]:
    """What was measured; empty where nothing was."""
    if (ratio := line.ratio) is None:
        return dict.fromkeys(("ours", "theirs", "unit", "ratio", "low", "high", "pairs"))
    return {
        "ours": round(ratio.ours, 2),
        "theirs": round(ratio.theirs, 2),
        "unit": line.unit,
        "ratio": round(ratio.median, 3),
        "low": round(ratio.low, 3),
        "high": round(ratio.high, 3),
        "pairs": ratio.pairs,
    }


def markdown(frame: pd.DataFrame, place: str) -> str:
    where = f"{platform.machine()}, one thread"
    if place == "gpu":
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = f"torch {torch.__version__}, Python {platform.python_version()}, {where}"
    return (
        f"{machine}. Ratio: ours over theirs, the median over alternating pairs with its 95% interval; "
        f"a line fails where the whole interval lies above {TOLERANCE:g} times its goal, a line of memory (one "
        "pair of processes) where it lies above the goal.\n\n" + frame.to_markdown(index=False) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
