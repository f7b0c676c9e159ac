"""All groups of lines of the benchmark, by the name that `--only` takes.

A group is a function, called with the seconds that each comparison may take, that yields Line objects. It is imported
when it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from posbench.instantiate import locate

if TYPE_CHECKING:
    from posbench.benchmark.line import Line

# Group -> function, within posbench.benchmark.
LINES = {
    "peers": "steps.peers",
    "schemes": "steps.schemes",
    "recurrences": "recurrences.lines",
    "bfloat16": "steps.bfloat16",
    "retrieval": "evaluation.retrieval",
    "prefix": "evaluation.prefix",
    "extensions": "evaluation.extensions",
    "extended": "evaluation.extended",
    "logits": "memory.logits",
    "lengths": "memory.lengths",
    "gpu": "gpu.lines",
}


def measure_of(group: str) -> Callable[..., Iterator[Line]]:
    """The function of a group."""
    return locate(f"posbench.benchmark.{LINES[group]}")
