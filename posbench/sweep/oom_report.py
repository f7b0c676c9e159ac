"""Memory that a device does not have: what counts as that, and what a user is told would fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from posbench.errors import ConfigError
from posbench.results.rows import Store
from posbench.runtime.distributed import together, world
from posbench.runtime.oom import is_shortage
from posbench.sweep.plan import Cell, ModelPlan


@contextmanager
def said_of(model: ModelPlan) -> Iterator[None]:
    """Turn a shortage in the training of a model into one line, on whichever rank it comes."""
    here = world()
    with together(here):
        try:
            yield
            return
        except Exception as error:
            if not is_shortage(error):
                raise
    # Not from the error, whose frames hold the memory.
    if here.size == 1:
        raise ConfigError(_advice(model))
    raise here.lost(f"{_advice(model)}; with more memory the same command continues from the last checkpoint")


def _advice(model: ModelPlan) -> str:
    train, ranks = model.train, world().size
    each = train.batch // ranks
    more = [parts for parts in range(train.accumulate + 1, each + 1) if each % parts == 0]
    ways = [f"train.accumulate={more[0]}"] if more else []
    ways += ["a smaller train.batch" if more else "a shorter train.length or a smaller size"]
    ways += ["train.dtype=bfloat16"] if train.dtype == "float32" else []
    return (
        f"out of memory in training {model.label}, {each // train.accumulate} x {train.length} tokens at once: "
        f"give {' or '.join(ways)}"
    )


def shortages(cells: Iterable[Cell], store: Store) -> list[str]:
    """A line for each cell that had no memory: which, and the longest of its kind that did fit."""
    fitted: dict[tuple[str, str, str], int] = {}
    short: list[Cell] = []
    for cell in cells:
        status = store.sidecar(cell.id).get("status")
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
