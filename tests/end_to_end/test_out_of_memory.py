"""No memory at a length: fewer texts at once, then a row that says so, and the sweep goes on."""

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
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device that reads 100 tokens at once; the list notes what it was asked for."""
    read, asked = NativeLM.read, list[int]()

    def reading(self: NativeLM, ids: np.ndarray, *others: object) -> object:
        asked.append(ids.size)
        if ids.size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return read(self, ids, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(NativeLM, "read", reading)
    return asked


def test_a_length_that_does_not_fit_is_a_row_and_the_rest_is_measured(script, tmp_path, small) -> None:
    answer = script("sweep", *ONE)
    assert answer.code == 0, answer
    said = [line for line in answer.out.splitlines() if line.startswith("out of memory")]
    assert [line.split(" tokens")[0].split()[-1] for line in said] == ["128", "256"]
    assert "rope, miniature, length 16, seed 0, fixed_targets at 128 tokens" in said[0]
    assert "64 tokens fitted" in said[0]
    assert "bfloat16" in said[0]
    found = rows(tmp_path / "results")
    statuses = found.groupby("eval_len")["status"].unique().map(set).to_dict()
    assert statuses == {
        length: {"ok" if length <= 64 else "out_of_memory"} for length in (16, 32, 64, 128, 256)
    }
    assert {4 * 33, 3 * 33, 65} <= set(small)  # four texts at once, then three, then one


def test_how_many_texts_are_read_at_once_leaves_no_trace(script, tmp_path, request) -> None:
    assert script("sweep", *ONE).code == 0
    whole = rows(tmp_path / "results").query("eval_len <= 64")
    request.getfixturevalue("small")
    (tmp_path / "results").rename(tmp_path / "before")
    assert script("sweep", *ONE).code == 0
    parts = rows(tmp_path / "results").query("eval_len <= 64")
    np.testing.assert_allclose(parts["value_sum"], whole["value_sum"], rtol=1e-6)
    pd.testing.assert_frame_equal(parts.drop(columns="value_sum"), whole.drop(columns="value_sum"))


def test_a_training_that_does_not_fit_is_one_line(script, monkeypatch) -> None:
    def step(self: Trainer, step: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Trainer, "step", step)
    answer = script("sweep", *ONE)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert "out of memory in training rope, miniature, length 16, seed 0, 8 x 16 tokens" in answer.err
    assert "train.grad_accum_steps=2" in answer.err
