"""All lines of the benchmark, by the name with which `--only` asks for them.

A new line is a function here that yields Line objects; the script prints, stores and judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from posbench.benchmark import evaluation, gpu, memory, steps
from posbench.benchmark.line import Line

# Called with the seconds that each comparison may take.
LINES: dict[str, Callable[[float], Iterator[Line]]] = {
    "peers": steps.peers,
    "schemes": steps.schemes,
    "bfloat16": steps.bfloat16,
    "retrieval": evaluation.retrieval,
    "prefix": evaluation.prefix,
    "extensions": evaluation.extensions,
    "logits": memory.logits,
    "lengths": memory.lengths,
    "gpu": gpu.lines,
}
