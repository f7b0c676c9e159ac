"""A results folder with one finished model, as posbench train leaves it, without a training."""

from __future__ import annotations

import functools
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.results.rows import RowStore
from posbench.training import checkpoints
from posbench.training.trainer import build_model

sys.path.append(str(Path(__file__).parents[1] / "report"))
from synthetic_rows import synthetic_rows

ALIBI = {"_target_": "posbench.schemes.alibi.ALiBi"}
MODEL = "0123456789abcdef"


def settings(scheme: dict | None = None, name: str = "alibi", **data: object) -> ModelSettings:
    """Settings of a small training."""
    given = DataSettings("stdlib", "stdlib", **data)  # type: ignore[arg-type]
    return ModelSettings(
        SchemeSettings(name, scheme or ALIBI),
        SizeSettings("l1h1d16", 1, 16, 1),
        given,
        TrainSettings(seq_len=64, steps=7, synthetic_fraction=0.25),
    )


def write_trained(results: Path, given: ModelSettings, vocab_size: int = 361, **changed: object) -> Path:
    """Writes a model with random weights as a finished training; returns its folder."""
    model = build_model(given, vocab_size)
    metadata = {
        "status": "ok",
        "step": 7,
        "train_tokens": 7 * 48 * 64,
        "n_params": model.parameter_count(),
        "settings": asdict(given),
        "log_history": [],
        **changed,
    }
    folder = results / "models" / MODEL
    checkpoints.write(folder / "final", {"model": model.state_dict()}, metadata)
    return folder


@functools.cache
def evaluated() -> pd.DataFrame:
    """The losses of the model at several lengths."""
    rows = synthetic_rows(documents=4, contexts=4, schemes=["alibi"]).assign(model_id=MODEL)
    return rows[rows["protocol"] == "fixed_targets"]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a model with ALiBi, beside rows of its evaluation."""
    store = RowStore(tmp_path / "results" / "cells")
    for cell, part in evaluated().groupby("cell_id"):
        records = part.astype(object).where(part.notna(), None).to_dict("records")
        store.write(str(cell), records, {})
    return write_trained(tmp_path / "results", settings())
