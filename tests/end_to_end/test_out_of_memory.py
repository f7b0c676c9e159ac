"""Out of memory at a length: smaller batches, then rows with that status, and the sweep continues."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from posbench.lm.native import NativeLM
from posbench.results.rows import read_rows
from posbench.training.trainer import Trainer

ONE = (
    "experiment=miniature",
    "runtime.launcher=inline",
    "grid.scheme=[rope]",
    "grid.extension=[]",
    "~evaluate.non_overlapping",
    "~evaluate.prefix",
    "~evaluate.key_value",
    "~evaluate.attention",
    "figures=[]",
)
BY = ["eval_len", "doc_id", "example"]


def rows(folder: Path) -> pd.DataFrame:
    return read_rows(folder / "miniature" / "rows.parquet").sort_values(BY).reset_index(drop=True)


@pytest.fixture
def limited_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device with memory for 100 tokens; the list collects the sizes of all batches."""
    read, sizes = NativeLM.read, list[int]()

    def reading(self: NativeLM, ids: np.ndarray, *others: object) -> object:
        sizes.append(ids.size)
        if ids.size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return read(self, ids, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(NativeLM, "read", reading)
    return sizes


def test_a_length_that_does_not_fit_becomes_rows_and_the_rest_is_measured(
    script, tmp_path, limited_memory
) -> None:
    result = script("sweep", *ONE)
    assert result.code == 0, result
    lines = [line for line in result.out.splitlines() if line.startswith("out of memory")]
    assert [line.split(" tokens")[0].split()[-1] for line in lines] == ["128", "256"]
    assert "rope, miniature, length 16, seed 0, fixed_targets at 128 tokens" in lines[0]
    assert "64 tokens fitted" in lines[0]
    assert "bfloat16" in lines[0]
    found = rows(tmp_path / "results")
    statuses = found.groupby("eval_len")["status"].unique().map(set).to_dict()
    assert statuses == {
        length: {"ok" if length <= 64 else "out_of_memory"} for length in (16, 32, 64, 128, 256)
    }
    assert {4 * 33, 3 * 33, 65} <= set(limited_memory)  # four texts at once, then three, then one


def test_results_do_not_depend_on_the_batch_size(script, tmp_path, request) -> None:
    assert script("sweep", *ONE).code == 0
    whole = rows(tmp_path / "results").query("eval_len <= 64")
    request.getfixturevalue("limited_memory")
    (tmp_path / "results").rename(tmp_path / "before")
    assert script("sweep", *ONE).code == 0
    parts = rows(tmp_path / "results").query("eval_len <= 64")
    np.testing.assert_allclose(parts["value_sum"], whole["value_sum"], rtol=1e-6)
    pd.testing.assert_frame_equal(parts.drop(columns="value_sum"), whole.drop(columns="value_sum"))


def test_a_training_that_does_not_fit_is_a_one_line_error(script, monkeypatch) -> None:
    def step(self: Trainer, step: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Trainer, "step", step)
    result = script("sweep", *ONE)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "out of memory in training rope, miniature, length 16, seed 0, 8 x 16 tokens" in result.err
    assert "train.grad_accum_steps=2" in result.err
