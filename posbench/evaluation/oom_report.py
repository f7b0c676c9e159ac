"""Messages about memory that a device does not have, with settings that would fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from posbench.errors import ConfigError
from posbench.plan.cell import Cell, ModelPlan
from posbench.results.rows import RowStore
from posbench.runtime.distributed import catch_rank_failure, world
from posbench.runtime.oom import is_out_of_memory


@contextmanager
def explain_oom(model: ModelPlan) -> Iterator[None]:
    """Turns an out-of-memory error in the training of a model, on any rank, into a one-line error."""
    here = world()
    with catch_rank_failure(here):
        try:
            yield
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
    # Outside the except block, because the frames of the error keep its tensors alive.
    if here.world_size == 1:
        raise ConfigError(_advice(model))
    raise here.announce_failure(
        f"{_advice(model)}; with more memory the same command continues from the last checkpoint"
    )


def _advice(model: ModelPlan) -> str:
    train, ranks = model.train, world().world_size
    per_rank = train.batch_size // ranks
    micro_steps = [n for n in range(train.grad_accum_steps + 1, per_rank + 1) if per_rank % n == 0]
    # Other settings of train would train its base model again.
    key = f"finetune.{model.fine_tuning.extension.name}.train" if model.fine_tuning else "train"
    remedies = [f"{key}.grad_accum_steps={micro_steps[0]}"] if micro_steps else []
    remedies += [
        f"a smaller {key}.batch_size" if micro_steps else f"a shorter {key}.seq_len or a smaller size"
    ]
    remedies += [f"{key}.dtype=bfloat16"] if train.dtype == "float32" else []
    at_once = per_rank // train.grad_accum_steps
    return (
        f"out of memory in training {model.label}, {at_once} x {train.seq_len} tokens at once: "
        f"give {' or '.join(remedies)}"
    )


def oom_report_lines(cells: Iterable[Cell], store: RowStore) -> list[str]:
    """Returns a line for each cell that was out of memory, with the longest length of the same task that did fit."""
    fitted: dict[tuple[str, str, str], int] = {}
    failed: list[Cell] = []
    for cell in cells:
        status = store.run_metadata(cell.id).get("status")
        if status == "out_of_memory":
            failed.append(cell)
        elif status == "ok":  # undefined and diverged cells may have read nothing
            fitted[_kind(cell)] = max(cell.length, fitted.get(_kind(cell), 0))
    return [_line(cell, fitted.get(_kind(cell), 0)) for cell in failed]


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.model.id, cell.extension.name, cell.task.name


def _line(cell: Cell, fitted: int) -> str:
    extension = "" if cell.extension.name == "none" else f" + {cell.extension.name}"
    remedies = [f"{fitted} tokens fitted" if fitted else "no length fitted", "give a shorter one"]
    if cell.dtype == "float32":
        remedies.append("evaluate it with dtype=bfloat16")
    return (
        f"out of memory: {cell.model.label}{extension}, {cell.task.name} at {cell.length} tokens, with a batch of one "
        f"text: {', '.join(remedies)} or use a device with more memory"
    )
