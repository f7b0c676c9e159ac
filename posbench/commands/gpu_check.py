"""Compares every scheme and extension on a GPU with the reference kernel; the exit status is 1 where one differs.

Outputs and gradients of FlexAttention against the kernel `dense`, in float32 and bfloat16, then a few steps of
training. The report goes to results/gpu-check.

examples:
  posbench gpu-check --only alibi yarn     # some schemes and extensions
  posbench gpu-check --device cpu          # the same program, FlexAttention unfused, outputs only
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from posbench.commands import text_table
from posbench.commands.catalog import check_names, names
from posbench.config.setting import MAX_PROCESSES, Rule
from posbench.config.validation import check_number
from posbench.errors import ConfigError
from posbench.files import check_writable, write_text

if TYPE_CHECKING:
    from posbench.benchmark.gpu_check import CheckResult, SchemeVariant

RESULTS = Path("results/gpu-check")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", action="extend", default=[], help="these schemes and extensions")
    parser.add_argument(
        "--max-minutes",
        type=float,
        default=8.0,
        help="start no other variant after these minutes; the rest is listed (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that compile in parallel (default: one for every two cores, at most 8; on the CPU 1)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/posbench"), help="corpus cache (default: %(default)s)"
    )


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    settings = parser("gpu-check").parse_args(arguments)
    cores = (os.cpu_count() or 1) if settings.device == "cuda" else 1
    workers = max(1, min(8, cores // 2)) if settings.workers is None else settings.workers
    check_number("--workers", workers, Rule(least=1, most=MAX_PROCESSES))
    check_number("--max-minutes", settings.max_minutes, Rule(least=0))
    check_names("scheme or extension", settings.only, [*names("scheme"), *names("extension")])
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "no CUDA device here, so nothing is checked: run it on a machine with one, or give --device cpu"
        )
    check_writable(settings.results)
    from posbench.benchmark import gpu_check

    logging.basicConfig(format="%(message)s")
    logging.getLogger("posbench").setLevel(logging.INFO)  # reports the chosen backend of SDPA
    say = partial(print, flush=True)
    variants = gpu_check.variants(settings.only)
    lines, skipped = gpu_check.check(variants, settings.device, settings.max_minutes, say, workers)
    for line in gpu_check.trainings(settings.device, settings.cache):
        lines.append(line)
        say(gpu_check.format_line(line))
    write_text(settings.results / "report.csv", gpu_check.table(lines).to_csv(index=False))
    write_text(settings.results / "report.md", to_markdown(lines, skipped, settings.device))
    failed = [line for line in lines if line.status != "ok"]
    print(f"{len(lines) - len(failed)} of {len(lines)} lines are ok: {settings.results / 'report.md'}")
    for line in failed:
        print(f"{line.variant}, {line.dtype}: {line.status}")
    if skipped:
        only = " ".join(dict.fromkeys(one.extension or one.scheme for one in skipped))
        print(f"no time for {len(skipped)} of {len(variants)} variants: give --only {only}")
    return 1 if failed else 0


def to_markdown(lines: Sequence[CheckResult], skipped: Sequence[SchemeVariant], device: str) -> str:
    """Formats the report: device, model and tolerances, then a table."""
    from posbench.benchmark import gpu_check

    table = gpu_check.table(lines)
    missing = f"\nNot checked for lack of time: {', '.join(map(str, skipped))}.\n" if skipped else ""
    return (
        f"{gpu_check.conditions(device)}\n\n"
        + text_table.markdown(list(table), [[short(cell) for cell in line] for line in table.values.tolist()])
        + f"\n{missing}"
    )


def short(cell: object) -> object:
    """Rounds floats to two significant digits."""
    return float(f"{cell:.2g}") if isinstance(cell, float) else cell
