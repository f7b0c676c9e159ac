"""Check on a GPU that every scheme and extension computes what it should; exit status 1 where one does not.

    python scripts/gpu_check.py --only alibi yarn     # some schemes and extensions
    python scripts/gpu_check.py --device cpu          # the same program, FlexAttention unfused, values alone

Writes results/gpu-check/report.csv and report.md.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import torch

from posbench.benchmark import gpu_check
from posbench.errors import ConfigError, PosbenchError

RESULTS = Path(__file__).resolve().parents[1] / "results" / "gpu-check"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], help="these schemes and extensions")
    parser.add_argument(
        "--max-minutes",
        type=float,
        default=8.0,
        help="start no other variant after these; the rest is named (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes that compile side by side (default: one for every two cores, 8 at most; on the CPU 1)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default: results/gpu-check)")
    parser.add_argument("--cache", type=Path, default=Path(".cache/posbench"), help="of the corpus")
    settings = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("posbench").setLevel(logging.INFO)  # which backend of SDPA was chosen
    if settings.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check needs a CUDA device, which this machine does not have: nothing was checked")
        return 0
    cores = (os.cpu_count() or 1) if settings.device == "cuda" else 1
    workers = settings.workers or max(1, min(8, cores // 2))
    try:
        if workers < 1 or settings.max_minutes < 0:
            raise ConfigError(
                f"--workers {settings.workers}, --max-minutes {settings.max_minutes}: give at least 1 and 0"
            )
        chosen = gpu_check.variants(settings.only)
    except PosbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines, left = gpu_check.check(chosen, settings.device, settings.max_minutes, say, workers)
    for line in gpu_check.trainings(settings.device, settings.cache):
        lines.append(line)
        say(gpu_check.told(line))
    frame = gpu_check.table(lines)
    settings.results.mkdir(parents=True, exist_ok=True)
    frame.to_csv(settings.results / "report.csv", index=False)
    (settings.results / "report.md").write_text(gpu_check.markdown(frame, left, settings.device))
    failed = [line for line in lines if line.status != "ok"]
    print(f"{len(lines) - len(failed)} of {len(lines)} lines are ok: {settings.results / 'report.md'}")
    for line in failed:
        print(f"{line.variant}, {line.dtype}: {line.status}")
    if left:
        names = " ".join(dict.fromkeys(one.extension or one.scheme for one in left))
        print(f"no time for {len(left)} of {len(chosen)} variants: give --only {names}")
    return 1 if failed else 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
