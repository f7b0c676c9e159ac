"""Fine-tuning with extensions, from the command line to rows."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from posbench.config.schema import ExtensionSettings, TrainSettings
from posbench.plan.finetune import finetune_settings

pytestmark = pytest.mark.slow

MINIATURE = (
    "experiment=miniature",
    "runtime.launcher=inline",
    "grid.scheme=[rope]",
    "grid.extension=[pi]",
    "~evaluate.non_overlapping",
    "~evaluate.prefix",
    "~evaluate.key_value",
    "evaluate.fixed_targets.length_multiples=[1,2,4]",
    "figures=[fixed_targets]",
)
TUNED = "+finetune.pi_9={extension: pi, train: {steps: 9, seq_len: 32}}"


@pytest.fixture
def rows(tmp_path: Path):
    return lambda: pd.read_parquet(tmp_path / "results" / "miniature" / "rows.parquet")


def models(results: Path) -> dict[str, dict]:
    """Metadata of each trained model, by the name of its folder."""
    return {
        path.parent.parent.name: json.loads(path.read_text())
        for path in results.glob("models/*/final/metadata.json")
    }


def test_fine_tuned_models_continue_from_their_base_model(script, rows, tmp_path):
    assert script("sweep", *MINIATURE).code == 0
    plain = rows()
    (base,) = models(tmp_path / "results")

    result = script(
        "sweep",
        *MINIATURE,
        TUNED,
        "+finetune.pi_0={extension: pi, train: {steps: 0, seq_len: 32}}",
        "+finetune.pi_4={extension: pi, settings: {factor: 4}, train: {steps: 9, seq_len: 32}}",
        "+finetune.dropped={extension: drope, train: {steps: 9, lr: 0.001}}",
        "+finetune.longer={extension: none, train: {steps: 9, seq_len: 32}}",
    )
    assert result.code == 0, result
    assert "5 models, 4 to train" in result.out
    found = rows()
    made = models(tmp_path / "results")
    assert len(made) == 5
    assert sorted(one["extension"]["name"] for one in made.values() if "extension" in one) == sorted(
        ["pi_9", "pi_4", "dropped", "longer"]
    )
    # Earlier cells keep their identity and are not measured again.
    assert set(plain["cell_id"]) <= set(found["cell_id"])
    assert set(plain.loc[plain["extension"] == "pi", "model_id"]) == {base}

    by = found.groupby("extension")[["model_id", "train_len", "train_tokens"]].agg(set)
    assert by.loc["pi_0", "model_id"] == {base}  # without steps it is the same model and the same cells
    assert set(found.loc[found["extension"] == "pi_0", "cell_id"]) == set(
        found.loc[found["extension"] == "pi", "cell_id"]
    )
    tuned = [name for name in by.index if name not in ("none", "pi", "pi_0")]
    assert sorted(tuned) == ["dropped", "longer", "pi_4", "pi_9"]
    assert len(set.union(*by.loc[tuned, "model_id"])) == 4
    # The length and tokens of the pretraining, so that a figure can compare them.
    assert set.union(*by["train_len"]) == {16}
    assert set.union(*by["train_tokens"]) == {30 * 8 * 16}

    (metadata,) = (made[name] for name in by.loc["pi_9", "model_id"])
    train = metadata["settings"]["finetune"]
    assert (train["steps"], train["seq_len"], train["batch_size"]) == (9, 32, 4)
    assert (train["lr"], train["muon_lr"]) == (pytest.approx(0.0003), pytest.approx(0.002))

    table = tmp_path / "results" / "miniature" / "tables" / "perplexity-fixed_targets-bits_per_byte.md"
    assert "rope + pi_9" in table.read_text()
    again = script("sweep", *MINIATURE, TUNED)
    assert "3 models, 0 to train" not in again.out
    assert "2 models, 0 to train" in again.out
    assert ", 0 to measure" in again.out


def test_auto_does_not_fall_below_the_fine_tuned_length():
    from posbench.config.schema import ExtensionSettings, ModelSettings
    from posbench.plan.plan import apply_extension, build_untrained_scheme

    settings = ModelSettings()
    settings.scheme.build = {"_target_": "posbench.schemes.rope.RoPE"}
    build = {"_target_": "posbench.extensions.pi.PositionInterpolation", "factor": "auto"}
    factors = [
        [
            apply_extension(
                build_untrained_scheme(settings),
                ExtensionSettings("pi", build, finetune=finetune),
                settings,
                length,
            ).factor
            for length in (32, 64, 128, 256, 512)
        ]
        for finetune in ({}, {"steps": 0, "seq_len": 256}, {"steps": 200, "seq_len": 256}, {"steps": 200})
    ]
    assert factors == [[1, 1, 2, 4, 8], [1, 1, 2, 4, 8], [4, 4, 4, 4, 8], [1, 1, 2, 4, 8]]


def test_an_interrupted_fine_tuning_is_resumed(script, rows, tmp_path, monkeypatch):
    """Interrupted between two checkpoints and resumed, it has the same weights as an uninterrupted one."""
    from posbench.training import checkpoints
    from posbench.training.trainer import Trainer

    quick = (
        *MINIATURE,
        TUNED,
        "runtime.checkpoint_interval=4",
        "evaluate.fixed_targets.length_multiples=[1]",
    )
    step, seen = Trainer.step, []

    def failing(self: Trainer, number: int):
        if self.start and number == fails_at:
            raise KeyboardInterrupt
        if self.start:
            seen.append(number)
        return step(self, number)

    monkeypatch.setattr(Trainer, "step", failing)
    fails_at = 6
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        assert script("sweep", *quick).code == 0
    fails_at = None
    assert seen == [0, 1, 2, 3, 4, 5]
    (left,) = (tmp_path / "results").glob("models/*/step-00000004")
    seen.clear()
    assert script("sweep", *quick).code == 0
    # Fault: a restart from step 0 has the same weights, and no test noticed it.
    assert seen == [4, 5, 6, 7, 8]
    resumed = checkpoints.tensors(left.parent / "final", "model")

    assert script("sweep", *quick, f"runtime.results_dir={tmp_path / 'whole'}").code == 0
    whole = checkpoints.tensors(tmp_path / "whole" / "models" / left.parent.name / "final", "model")
    assert resumed is not None
    assert whole is not None
    assert all(bool((resumed[name] == whole[name]).all()) for name in whole)


def test_evaluate_fine_tunes_and_measures(script):
    small = ("size.n_layers=1", "size.d_model=8", "size.n_heads=2", "train.steps=2", "train.seq_len=8")
    quick = ("task=fixed_targets", "evaluation.length_multiples=[1,2]", "+evaluation.settings.num_examples=2")
    assert script("train", *small).code == 0
    result = script(
        "evaluate",
        *small,
        *quick,
        "extension=pi",
        "+extension.finetune.steps=2",
        "+extension.finetune.seq_len=16",
    )
    assert result.code == 0, result
    assert "2 models, 1 to train" in result.out
    assert re.search(r"rope \+ pi", result.out)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("pi_9={extension: pi, train: {seq_len: 32}}", ["pi_9 has no steps", "0 for none"]),
        ("pi_9={extension: pi}", ["finetune.pi_9 without train", "steps"]),
        (
            "pi_9={extension: pi, train: {steps: 9, grad_accum_steps: 0}}",
            ["grad_accum_steps 0", "at least 1"],
        ),
        ("pi_9={extension: pi, train: {steps: -1}}", ["finetune.pi_9.train.steps -1"]),
        ("pi_9={extension: pi, train: {steps: many}}", ["finetune.pi_9.train.steps 'many'", "int"]),
        ("pi_9={extension: pi, train: {steps: 9, sq_len: 32}}", ["sq_len", "did you mean", "seq_len"]),
        ("pi_9={extension: pi, train: {steps: 9, seq_len: 0}}", ["train.seq_len 0", "at least 1"]),
        (
            "pi_9={extension: pi, train: {steps: 9, seq_len: 900000000, batch_size: 2}}",
            ["900000000", "smaller train.batch_size or train.seq_len"],
        ),
        (
            "pi_9={extension: pi, train: {steps: 9, seq_len: 512, batch_size: 2}}",
            ["88 distinct keys", "data.num_keys"],
        ),
        (  # fault: accepted, although the same pair of settings of the training was refused
            "pi_9={extension: pi, train: {steps: 9, optimizer: adamw, muon_lr: 0.1}}",
            ["fine-tuning with pi_9", "train.muon_lr", "changes nothing with train.optimizer adamw"],
        ),
        (
            "pi_9={extension: pi, train: {steps: 9, synthetic_fraction: 0, query_fraction: 0.5}}",
            ["fine-tuning with pi_9", "train.query_fraction", "changes nothing"],
        ),
        ("pi={train: {steps: 9}}", ["finetune.pi", "another"]),
        ("pi_9={train: {steps: 9}}", ["extension 'pi_9'", "pi"]),
        ("pi_9={extension: pi, step: 9}", ["'finetune.pi_9.step'", "finetune.pi_9.train"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_sweep_rejects_bad_entries(script, entry, expected):
    result = script("sweep", *MINIATURE, f"+finetune.{entry}")
    lines = result.err.strip().splitlines()
    assert result.code == 2, result
    assert len([line for line in lines if line.startswith("error: ")]) == 1, result.err
    for words in expected:
        assert words in lines[-1], (words, lines[-1])


def test_a_fine_tuning_at_an_undefined_length_is_left_out(script):
    result = script(
        "sweep",
        *MINIATURE,
        "grid.scheme=[learned]",
        "grid.extended_schemes=[]",
        "grid.extension=[]",
        "+finetune.longer={extension: none, train: {steps: 2, seq_len: 32}}",
        "+finetune.yarn_2={extension: yarn, train: {steps: 2, seq_len: 32}}",
    )
    assert result.code == 0, result
    assert "left out: learned + longer: fine-tuning at length 32" in result.out
    assert "left out: learned + yarn_2" in result.out


def test_fine_tuned_models_have_identities_of_their_own():
    from dataclasses import replace

    from posbench.config.schema import ExtensionSettings, ModelSettings, TrainSettings
    from posbench.plan.cell import FineTuning, ModelPlan

    base = ModelPlan(ModelSettings(), "corpus", 1)
    child = replace(base, fine_tuning=FineTuning(base, ExtensionSettings("pi"), 1, TrainSettings()))
    other = replace(child, fine_tuning=replace(child.fine_tuning, extension_version=2))
    assert len({base.id, child.id, other.id}) == 3


def test_a_long_fine_tuning_has_room_for_both_kinds_of_sequences():
    """Fault: the default batch had one sequence, and the error advised to change the batch of the base model."""
    base = TrainSettings(seq_len=16, batch_size=8, synthetic_fraction=0.5)
    tuning = finetune_settings(base, ExtensionSettings("pi", None, {"steps": 2, "seq_len": 128}))
    assert tuning is not None
    assert tuning.batch_size == 2


def test_a_model_is_fine_tuned_on_another_task(script, tmp_path):
    """Fault: it was judged by the task of its pretraining, and refused the one that it was tuned on."""
    tuning = "{extension: none, train: {steps: 2, synthetic_fraction: 1.0, synthetic_task: copy}}"
    result = script(
        "sweep",
        *MINIATURE,
        "grid.scheme=[rope]",
        "grid.extended_schemes=[]",
        "grid.extension=[]",
        f"+finetune.copying={tuning}",
        "+evaluate.algorithmic={length_multiples: [1], settings: {rule: copy, num_examples: 2}}",
    )
    assert result.code == 0, result
    rows = pd.concat([pd.read_parquet(file) for file in (tmp_path / "results" / "cells").glob("*.parquet")])
    assert set(rows.loc[rows["task"] == "algorithmic", "extension"]) == {"copying"}
