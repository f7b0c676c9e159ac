"""Works on a sweep that posbench sweep has written to a results folder: claims the next job, runs it, and so on.

Any number of workers can run at once, on any machine with access to the folder. A worker ends when no job is left. On
SIGINT, SIGTERM and SIGUSR2 it stops at its next checkpoint or cell. Its exit status is 1 if failed jobs are left.

examples:
  posbench worker results 5f3c0a1be2d4c607
  srun posbench worker /scratch/results 5f3c0a1be2d4c607
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results_dir", type=Path, help="the results folder")
    parser.add_argument("sweep", help="the id of the sweep: the name of its file in sweeps/")
    parser.add_argument("--device", default="", help="in place of runtime.device of the sweep")
    parser.add_argument(
        "--allow",
        nargs="+",
        action="extend",
        default=[],
        help="packages outside posbench whose classes it may use",
    )


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    given = parser("worker").parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    signal.signal(signal.SIGUSR2, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    from posbench.plan.sweep_file import Assignment
    from posbench.runtime.signals import stop_flag
    from posbench.sweep.worker import run_worker

    with stop_flag() as should_stop:
        assignment = Assignment(given.results_dir, given.sweep, uuid4().hex[:8], frozenset(given.allow))
        line, n_failed = run_worker(assignment, should_stop, given.device)
    print(line, file=sys.stderr)
    return 1 if n_failed else 0
