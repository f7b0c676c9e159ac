"""Checks that the code and the text of a worker are those with which a sweep was planned."""

from __future__ import annotations

from posbench.data.corpus import Corpus
from posbench.errors import DataError
from posbench.instantiate import instantiate
from posbench.lm.chunks import ChunkEnsemble
from posbench.plan.cell import Cell, ModelPlan
from posbench.plan.plan import apply_extension, build_untrained_scheme
from posbench.tasks.task import Task


def check_model(model: ModelPlan, corpus: Corpus) -> None:
    """Checks the versions of a model's scheme and extension, and the corpus that it is to read.

    Raises:
        DataError: if one of them differs from the plan.
    """
    if corpus.fingerprint != model.corpus:
        raise DataError(
            f"the text of data={model.settings.data.name} has the fingerprint {corpus.fingerprint} here and had "
            f"{model.corpus} when the sweep was planned: copy that folder into runtime.cache_dir and sweep with "
            f"data.fingerprint={model.corpus}, or run posbench sweep again"
        )
    scheme, tuning = build_untrained_scheme(model.settings), model.fine_tuning
    _check(f"scheme {model.settings.scheme.name}", scheme.version, model.version)
    if tuning and tuning.extension.build is not None:
        extended = apply_extension(scheme, tuning.extension, model.settings, tuning.train.seq_len)
        _check(f"extension {tuning.extension.name}", extended.version, tuning.extension_version)


def check_cell(cell: Cell, task: Task) -> None:
    """Checks the versions of a cell's task and extension.

    Args:
        task: the task that the settings of the cell build here.

    Raises:
        DataError: if one of them differs from the plan.
    """
    _check(f"task {cell.task.name}", task.version, cell.task_version)
    extension, settings = cell.extension, cell.model.settings
    if extension.ensemble is not None:
        version = instantiate(extension.ensemble, ChunkEnsemble, None, None).version
    elif extension.build is not None:
        scheme = build_untrained_scheme(settings)
        version = apply_extension(scheme, extension, settings, cell.length).version
    else:
        return
    _check(f"extension {extension.name}", version, cell.extension_version)


def _check(what: str, found: int, planned: int) -> None:
    if found != planned:
        raise DataError(
            f"{what} has version {found} here and had version {planned} when the sweep was planned: install one version of "
            "posbench on all machines, then run posbench sweep again"
        )
