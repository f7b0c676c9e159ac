"""Times posbench beside other implementations on one thread; the exit status is 1 where a line misses its goal.

A complete run is stored in results/benchmark; a run of some groups is only printed. The group gpu has a table of its
own, which is stored wherever there is a GPU; without one its lines are listed as skipped.

examples:
  posbench benchmark --only retrieval prefix
  posbench benchmark --only schemes --scheme rope alibi   # the training step of a scheme beside plain RoPE's
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench.commands import text_table
from posbench.commands.catalog import check_names, names
from posbench.config.setting import Rule
from posbench.config.validation import check_number
from posbench.errors import ConfigError
from posbench.files import check_writable, write_text

if TYPE_CHECKING:
    from posbench.benchmark.line import Line

GPU = "gpu"  # the group that needs one
RESULTS = Path("results/benchmark")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from posbench.benchmark.lines import LINES

    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="seconds for each line; slow lines take the time of their fewest pairs (default: %(default)s)",
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", choices=LINES, default=[], help="these groups of lines"
    )
    parser.add_argument(
        "--scheme", nargs="+", action="extend", default=[], help="with --only schemes: these schemes"
    )
    parser.add_argument("--results", type=Path, help=f"folder of a stored run (default: {RESULTS})")


def main(arguments: Sequence[str]) -> int:
    from posbench.benchmark.lines import LINES
    from posbench.commands.arguments import parser

    settings = parser("benchmark").parse_args(arguments)
    if settings.scheme and settings.only != ["schemes"]:
        raise ConfigError(
            "--scheme changes nothing here: add --only schemes, and no other part, or remove --scheme"
        )
    check_number("--seconds", settings.seconds, Rule(above=0))
    check_names("scheme", settings.scheme, names("scheme"))
    import torch

    logging.basicConfig(format="%(message)s")
    logging.getLogger("posbench").setLevel(logging.INFO)  # reports the chosen backend of SDPA
    torch.set_num_threads(1)
    groups = settings.only or list(LINES)
    tables = {
        "cpu": [group for group in groups if group != GPU],
        "gpu": [group for group in groups if group == GPU],
    }
    is_stored = {"cpu": not settings.only, "gpu": bool(tables["gpu"]) and torch.cuda.is_available()}
    if settings.results and not any(is_stored.values()):
        raise ConfigError(
            f"--results {settings.results} changes nothing: a run of some groups is only printed, except the group gpu "
            "where there is a GPU; remove --results, or --only"
        )
    folder = settings.results or RESULTS
    if any(is_stored.values()):
        check_writable(folder)
    passed = True
    for device, some in tables.items():
        if not some:
            continue
        lines = list(measure(some, settings.scheme, settings.seconds))
        rows = [row(line) for line in lines]
        report = to_markdown(rows, device)
        print(report)
        if is_stored[device]:
            write_text(folder / f"{device}.csv", to_csv(rows))
            write_text(folder / f"{device}.md", report)
        passed = passed and all(line.passed for line in lines)
    return 0 if passed else 1


def measure(groups: Sequence[str], schemes: Sequence[str], seconds: float) -> Iterator[Line]:
    """Yields the lines of some groups and prints each as it comes."""
    from posbench.benchmark.lines import measure_of

    for group in groups:
        lines = partial(measure_of(group), names=schemes) if schemes else measure_of(group)
        started = time.monotonic()
        for line in lines(seconds):
            result = line.result if line.ratio is None else f"{line.ratio.median:.3f}"
            took = time.monotonic() - started
            print(f"{line.what} | {line.peer} | {result} | {took:.0f} s", file=sys.stderr, flush=True)
            yield line
            started = time.monotonic()


def row(line: Line) -> dict[str, Any]:
    """Returns the columns of a line; those of the measurement are None where nothing was measured."""
    measured: dict[str, Any] = dict.fromkeys(("ours", "theirs", "unit", "ratio", "low", "high", "pairs"))
    if (ratio := line.ratio) is not None:
        measured |= {
            "ours": round(ratio.ours, 2),
            "theirs": round(ratio.theirs, 2),
            "unit": line.unit,
            "ratio": round(ratio.median, 3),
            "low": round(ratio.low, 3),
            "high": round(ratio.high, 3),
            "pairs": ratio.pairs,
        }
    return {
        "what": line.what,
        "peer": line.peer,
        **measured,
        "goal": round(line.goal, 3),
        "result": line.result,
    }


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the rows as csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Sequence[dict[str, Any]], device: str) -> str:
    """Formats the rows as a Markdown table, after a paragraph on the machine and the ratios."""
    import torch

    from posbench.benchmark.line import TOLERANCE

    where = f"{platform.machine()}, one thread"
    if device == "gpu":
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, {where}. Ratio: ours over theirs, the median "
        "over alternating pairs with its 95% interval. A line fails where the whole interval lies above "
        f"{TOLERANCE:g} times its goal; a line of memory, one pair of processes, where it lies above its goal.\n\n"
        + text_table.markdown(list(rows[0]), [list(row.values()) for row in rows])
        + "\n"
    )
