"""Training: the same bits in every run, interrupted or not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posbench.config.data import DataSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.training import checkpoints
from posbench.training.muon import orthogonalise
from posbench.training.trainer import Trainer, TrainingInterrupted, build_model

SIZE = SizeSettings("mini", n_layers=1, d_model=16, n_heads=2)
TRAIN = TrainSettings(seq_len=16, steps=12, batch_size=8, val_interval=4, val_batches=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    draw = np.random.default_rng(0)
    for index in range(40):
        words = draw.choice(["def", "return", "self", "for", "in", "\n", "if"], 200)
        text.with_name(f"{index}.txt").write_text(" ".join(words))
    return open_corpus(DataSettings(source="files", path=str(text.parent)), tmp_path_factory.mktemp("cache"))


def settings(**train: object) -> ModelSettings:
    build = {"_target_": "posbench.position.scheme.PositionScheme"}
    return ModelSettings(SchemeSettings("bare", build), SIZE, DataSettings(), replace(TRAIN, **train))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def bare_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the base class, which takes no shape, be built from settings, so that no named scheme is tested here."""
    from posbench.position.scheme import PositionScheme

    monkeypatch.setattr(PositionScheme, "__init__", lambda self, *_: torch.nn.Module.__init__(self))


def train(corpus: Corpus, folder: Path, runtime: RuntimeSettings | None = None, **changed: object) -> dict:
    trainer = Trainer(settings(**changed), corpus, folder, runtime or RuntimeSettings(checkpoint_interval=5))
    metadata = trainer.run()
    weights = checkpoints.tensors(folder / "final", "model")
    assert weights is not None
    return {**metadata, "weights": weights}


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first["weights"][name], tensor) for name, tensor in second["weights"].items())


def test_the_same_bits_in_every_run_and_others_for_another_seed(corpus, tmp_path):
    first = train(corpus, tmp_path / "a")
    assert same(first, train(corpus, tmp_path / "b"))
    assert not same(first, train(corpus, tmp_path / "c", seed=1))


def test_loss_falls(corpus, tmp_path):
    log_history = train(corpus, tmp_path, steps=60, synthetic_fraction=0.0)["log_history"]
    assert log_history[-1]["loss"] < log_history[0]["loss"] - 0.5
    assert log_history[-1]["validation_loss"] < 0.8 * np.log(256)


def test_a_training_without_text_is_validated_on_its_task(corpus, tmp_path):
    """Fault: its validation loss was that of text, which rises as the task is learned, and grid.lr selected by it."""
    task = {"synthetic_fraction": 1.0, "synthetic_task": "copy"}
    trainers = [Trainer(settings(seed=seed, **task), corpus, tmp_path, RuntimeSettings()) for seed in (0, 1)]
    held_out = [trainer.held_out.get_batch(0).ids for trainer in trainers]
    assert (held_out[0] == held_out[1]).all()
    assert (held_out[0] >= corpus.vocabulary.bos).all(), "no text"
    assert not (held_out[0] == trainers[0].batches.get_batch(0).ids).all(), "not what is trained"
    log_history = train(corpus, tmp_path, steps=60, **task)["log_history"]
    assert log_history[-1]["validation_loss"] < log_history[0]["validation_loss"]


@pytest.mark.parametrize("stop_at", [1, 4, 6, 11])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_continued_run_equals_an_uninterrupted_one(corpus, tmp_path, stop_at, optimizer):
    whole = train(corpus, tmp_path / "whole", optimizer=optimizer)
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps > stop_at

    trainer = Trainer(
        settings(optimizer=optimizer), corpus, tmp_path / "cut", RuntimeSettings(checkpoint_interval=100)
    )
    with pytest.raises(TrainingInterrupted):
        trainer.run(stop=stop)
    # Fault: a restart from step 0 has the same bits, and no test noticed it.
    resumed = Trainer(settings(optimizer=optimizer), corpus, tmp_path / "cut", RuntimeSettings())
    assert resumed.steps_done == stop_at
    cut = train(corpus, tmp_path / "cut", optimizer=optimizer)
    assert same(whole, cut)
    assert whole["log_history"] == cut["log_history"]
    assert not list((tmp_path / "cut").glob("step-*"))


def test_a_torn_checkpoint_is_set_aside_and_training_starts_before_it(corpus, tmp_path):
    whole = train(corpus, tmp_path / "whole")
    steps = iter(range(100))
    trainer = Trainer(settings(), corpus, tmp_path / "cut", RuntimeSettings(checkpoint_interval=100))
    with pytest.raises(TrainingInterrupted):
        trainer.run(stop=lambda: next(steps) >= 6)
    (path,) = (tmp_path / "cut").glob("step-*")
    state = path / "optimizer.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    assert same(whole, train(corpus, tmp_path / "cut"))
    assert list((tmp_path / "cut").glob("*.damaged-1"))


def test_gradient_accumulation_changes_only_rounding(corpus, tmp_path):
    whole, parts = train(corpus, tmp_path / "a"), train(corpus, tmp_path / "b", grad_accum_steps=4)
    for name, tensor in whole["weights"].items():
        torch.testing.assert_close(tensor, parts["weights"][name], rtol=0, atol=2e-3)
    losses = [[entry["loss"] for entry in one["log_history"]] for one in (whole, parts)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_validation_reads_as_many_sequences_at_once_as_a_training_step(corpus, tmp_path, monkeypatch):
    """Fault: it read the whole batch, so that gradient accumulation did not help against a lack of memory."""
    sizes: list[int] = []
    inner = Trainer.loss
    monkeypatch.setattr(
        Trainer, "loss", lambda self, tensors: (sizes.append(len(tensors[0])), inner(self, tensors))[1]
    )
    split = train(corpus, tmp_path / "split", grad_accum_steps=4)
    assert set(sizes) == {TRAIN.batch_size // 4}
    whole = train(corpus, tmp_path / "whole")
    losses = [one["log_history"][0]["validation_loss"] for one in (split, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_run_that_diverges_ends_with_that_status(corpus, tmp_path):
    metadata = train(corpus, tmp_path, lr=1e30, muon_lr=1e30, max_grad_norm=0.0, warmup_fraction=0.0)
    assert metadata["status"] == "diverged"
    assert metadata["step"] < 13


def test_bfloat16_autocast_trains(corpus, tmp_path):
    metadata = train(corpus, tmp_path, dtype="bfloat16", steps=20)
    assert metadata["status"] == "ok"
    assert all(tensor.dtype == torch.float32 for tensor in metadata["weights"].values())


def test_initial_weights_depend_on_their_own_name_and_shape_only():
    small = build_model(settings(), 50).state_dict()
    deeper = build_model(replace(settings(), size=replace(SIZE, n_layers=2)), 50).state_dict()
    larger = build_model(settings(), 60).state_dict()
    assert torch.equal(small["embedding.weight"], deeper["embedding.weight"])
    assert torch.equal(small["blocks.0.attention.qkv.weight"], deeper["blocks.0.attention.qkv.weight"])
    assert torch.equal(small["blocks.0.attention.qkv.weight"], larger["blocks.0.attention.qkv.weight"])
    assert not torch.equal(deeper["blocks.0.attention.qkv.weight"], deeper["blocks.1.attention.qkv.weight"])


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8)])
def test_muon_moves_singular_values_to_about_one(shape):
    draw = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=draw)
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.4
    # The singular vectors stay those of the matrix.
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert (
        torch.nn.functional.cosine_similarity((u @ v).flatten(), orthogonalise(matrices).flatten(), dim=0)
        > 0.9
    )
