"""The layout of a results folder, which is all that the processes of a sweep share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError
from posbench.files import file_in_place_of, remove_leftovers

if TYPE_CHECKING:
    import pandas as pd

    from posbench.plan.cell import Cell
    from posbench.results.rows import RowStore


@dataclass(frozen=True)
class ResultsFolder:
    """A results folder: models/, cells/, and of sweeps sweeps/ (what is to be done), locks/ and jobs/ (outcomes)."""

    path: Path

    @classmethod
    def from_runtime(cls, runtime: RuntimeSettings) -> ResultsFolder:
        """Returns the results folder of a run."""
        return cls(Path(runtime.results_dir))

    def model_dir(self, model: str) -> Path:
        """Returns the folder of a model, given its id."""
        return self.path / "models" / model

    @cached_property
    def store(self) -> RowStore:
        """The rows of all cells."""
        from posbench.results.rows import RowStore

        return RowStore(self.path / "cells")

    def check(self) -> None:
        """Raises ConfigError if the folder cannot be made or written, and changes nothing."""
        if file := file_in_place_of(self.path):
            reason = f"because {file} is a file"
        elif not os.access(
            next(one for one in (self.path, *self.path.absolute().parents) if one.exists()), os.W_OK
        ):
            reason = "because it is read-only"
        else:
            return
        raise ConfigError(
            f"results folder {self.path} cannot be written, {reason}: give another runtime.results_dir"
        )

    def prepare(self) -> None:
        """Creates the folders and removes what killed processes have left; raises ConfigError if they are not writable."""
        try:
            (self.path / "locks").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path / "locks"):
                pass
        except OSError as error:
            raise ConfigError(
                f"results folder {self.path} cannot be written ({error.strerror}): give another runtime.results_dir"
            ) from None
        for name in ("cells", "jobs", "locks", "sweeps"):
            remove_leftovers(self.path / name)
        for folder in self.path.glob("models/*"):
            remove_leftovers(folder)

    def has_model(self, model: str) -> bool:
        """Returns whether a trained model is there, without reading it."""
        return (self.model_dir(model) / "final").is_dir()

    def is_trained(self, model: str) -> bool:
        """Returns whether a model is complete; a damaged one is set aside."""
        from posbench.training import checkpoints

        return checkpoints.read_metadata(self.model_dir(model) / "final") is not None

    def is_evaluated(self, cell: str, runtime: RuntimeSettings, verify: bool = True) -> bool:
        """Returns whether a cell has rows of the wanted kernel.

        A shortage of memory counts on its own device only, and where as many processes share it.

        Args:
            cell: its id.
            verify: sets damaged rows aside; without it, rows that are there are taken as whole.
        """
        if not (self.store.has(cell) if verify else self.store.path(cell).exists()):
            return False
        if not self.store.is_of_kernel(cell, runtime.kernel):
            return False
        run_metadata = self.store.run_metadata(cell)
        if run_metadata.get("status") != "out_of_memory":
            return True
        from posbench.evaluation.evaluator import device_name, processes_per_gpu
        from posbench.runtime.device import pick_device

        if run_metadata.get("processes_per_gpu", 1) > processes_per_gpu(runtime):
            return False
        return run_metadata.get("device") == device_name(pick_device(runtime.device))

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """Returns the rows of cells in order, with the labels of the current configs and the gate of results.gate applied."""
        import numpy as np

        from posbench.results import gate

        rows, counts = self.store.collect([cell.id for cell in cells])
        labels = {
            "scheme": [cell.model.settings.scheme.name for cell in cells],
            "extension": [cell.extension.name for cell in cells],
            "model_size": [cell.model.settings.size.name for cell in cells],
            "corpus": [cell.model.settings.data.name for cell in cells],
        }
        repeated = {name: np.repeat(of_cell, counts) for name, of_cell in labels.items()}
        return gate.apply_gate(rows.assign(**repeated))
