"""A training run of a few steps, for any scheme."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posbench.config import hydra_app
from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.training.trainer import Trainer


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    text, draw = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for index in range(40):
        words = draw.choice(["def", "return", "self", "for", "in", "\n", "if"], 200)
        (text / f"{index}.txt").write_text(" ".join(words))
    return open_corpus(DataSettings(source="files", path=str(text)), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small_trainer(words: Corpus) -> Callable[..., Trainer]:
    def make(
        folder: Path,
        scheme: str = "rope",
        runtime: RuntimeSettings | None = None,
        n_layers: int = 2,
        **train: object,
    ) -> Trainer:
        chosen = {"seq_len": 16, "steps": 12, "batch_size": 8, "val_interval": 4, "val_batches": 1} | train
        settings = ModelSettings(
            SchemeSettings(scheme, hydra_app.load_group("scheme")[scheme]["build"]),
            SizeSettings("mini", n_layers=n_layers, d_model=16, n_heads=2),
            DataSettings(),
            TrainSettings(**chosen),  # type: ignore[arg-type]
        )
        return Trainer(settings, words, folder, runtime or RuntimeSettings(device="cpu"))

    return make
