"""Time posbench beside its peers on one thread; exit status 1 where a line misses its goal."""

import argparse
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from posbench.benchmark.lines import LINES, TOLERANCE, Line

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmark"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="time for each line (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default: results/benchmark)")
    settings = parser.parse_args(arguments)
    torch.set_num_threads(1)

    lines = []
    for measure in LINES:
        for line in measure(settings.seconds):
            lines.append(line)
            print(f"{line.what} | {line.peer} | {line.ratio.median:.3f}", file=sys.stderr, flush=True)
    frame = table(lines)
    text = markdown(frame)
    write(settings.results / "cpu.csv", frame.to_csv(index=False))
    write(settings.results / "cpu.md", text)
    print(text)
    return 0 if all(line.passed for line in lines) else 1


def table(lines: Iterable[Line]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "what": line.what,
            "peer": line.peer,
            "ours_ms": round(line.ratio.ours_ms, 2),
            "peer_ms": round(line.ratio.theirs_ms, 2),
            "ratio": round(line.ratio.median, 3),
            "low": round(line.ratio.low, 3),
            "high": round(line.ratio.high, 3),
            "pairs": line.ratio.pairs,
            "goal": line.goal,
            "result": "ok" if line.passed else "FAILED",
        }
        for line in lines
    )


def markdown(frame: pd.DataFrame) -> str:
    machine = (
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, one thread"
    )
    return (
        f"{machine}. Ratio: ours over the peer's time, the median over alternating pairs with its 95% interval; "
        f"a line fails where the whole interval lies above {TOLERANCE:g} times its goal.\n\n"
        + frame.to_markdown(index=False)
        + "\n"
    )


def write(path: Path, text: str) -> None:
    """Under a temporary name first: a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
