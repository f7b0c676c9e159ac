"""Memory that a device does not have: what counts as that, and what a user is told would fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from posbench.errors import ConfigError
from posbench.results.rows import RowStore
from posbench.runtime.distributed import catch_rank_failure, world
from posbench.runtime.oom import is_out_of_memory
from posbench.sweep.cell import Cell, ModelPlan


@contextmanager
def explain_oom(model: ModelPlan) -> Iterator[None]:
    """Turn an out-of-memory error in the training of a model into one line, on whichever rank it comes."""
    here = world()
    with catch_rank_failure(here):
        try:
            yield
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
    # Not from the error, whose frames hold the memory.
    if here.world_size == 1:
        raise ConfigError(_advice(model))
    raise here.announce_failure(
        f"{_advice(model)}; with more memory the same command continues from the last checkpoint"
    )


def _advice(model: ModelPlan) -> str:
    train, ranks = model.train, world().world_size
    each = train.batch_size // ranks
    more = [parts for parts in range(train.grad_accum_steps + 1, each + 1) if each % parts == 0]
    ways = [f"train.grad_accum_steps={more[0]}"] if more else []
    ways += ["a smaller train.batch_size" if more else "a shorter train.seq_len or a smaller size"]
    ways += ["train.dtype=bfloat16"] if train.dtype == "float32" else []
    return (
        f"out of memory in training {model.label}, {each // train.grad_accum_steps} x {train.seq_len} tokens at once: "
        f"give {' or '.join(ways)}"
    )


def oom_report_lines(cells: Iterable[Cell], store: RowStore) -> list[str]:
    """A line for each cell that had no memory: which, and the longest of its kind that did fit."""
    fitted: dict[tuple[str, str, str], int] = {}
    short: list[Cell] = []
    for cell in cells:
        status = store.run_metadata(cell.id).get("status")
        if status == "out_of_memory":
            short.append(cell)
        elif status is not None:
            fitted[_kind(cell)] = max(cell.length, fitted.get(_kind(cell), 0))
    return [_line(cell, fitted.get(_kind(cell), 0)) for cell in short]


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.model.id, cell.extension.name, cell.task.name


def _line(cell: Cell, fitted: int) -> str:
    extension = "" if cell.extension.name == "none" else f" + {cell.extension.name}"
    ways = [f"{fitted} tokens fitted" if fitted else "no length fitted", "give a shorter one"]
    if cell.dtype == "float32":
        ways.append("evaluate it with dtype=bfloat16")
    return (
        f"out of memory: {cell.model.label}{extension}, {cell.task.name} at {cell.length} tokens, one text at a "
        f"time already: {', '.join(ways)} or a device with more memory"
    )
