"""Two models trained at different rates were once averaged into one row and called one seed."""

from dataclasses import replace

import pytest

from posbench import checksums
from posbench.config.schema import (
    ExtensionSettings,
    ModelSettings,
    SchemeSettings,
    TaskSettings,
    TrainSettings,
)
from posbench.errors import ConfigError
from posbench.files import write_bytes
from posbench.plan.cell import Cell, ModelPlan, Plan
from posbench.plan.labels import with_distinct_labels
from posbench.plan.lr_selection import select_learning_rates

ROPE = {"_target_": "posbench.schemes.rope.RoPE"}
FIXED = {"_target_": "posbench.tasks.fixed_targets.FixedTargets", "max_context": 64, "num_examples": 2}


def model(build=ROPE, name="rope", **train) -> ModelPlan:
    return ModelPlan(
        ModelSettings(SchemeSettings(name, dict(build)), train=TrainSettings(**train)), "a corpus", 1
    )


def cell(of: ModelPlan, build=FIXED, seed=0, dtype="float32") -> Cell:
    return Cell(of, ExtensionSettings(), 0, TaskSettings("fixed_targets", dict(build)), 1, 64, seed, dtype)


def plan(*models: ModelPlan) -> Plan:
    return Plan(list(models), [cell(one) for one in models], [])


@pytest.mark.parametrize(
    ("differing", "labels"),
    [
        ([{"lr": 0.001}, {"lr": 0.01}], ["rope (lr 0.001)", "rope (lr 0.01)"]),
        (
            [{"optimizer": "adamw"}, {"optimizer": "muon"}],
            ["rope (optimizer adamw)", "rope (optimizer muon)"],
        ),
        ([{"weight_decay": 0.1}, {}], ["rope (weight_decay 0.1)", "rope (weight_decay 0.0)"]),
        (
            [{"synthetic_task": "copy"}, {}],
            ["rope (synthetic_task copy)", "rope (synthetic_task associative_recall)"],
        ),
        (
            [{"build": {**ROPE, "rope_theta": 500.0}}, {}],
            ["rope (rope_theta 500.0)", "rope (rope_theta None)"],
        ),
    ],
)
def test_models_of_one_label_are_told_apart_by_what_differs(differing, labels) -> None:
    found = with_distinct_labels(plan(*(model(**one) for one in differing)))
    assert [one.settings.scheme.name for one in found.models] == labels
    assert [one.model.settings.scheme.name for one in found.cells] == labels


def test_ids_do_not_change_with_labels() -> None:
    before = plan(model(lr=0.001), model(lr=0.01))
    after = with_distinct_labels(before)
    assert [one.id for one in after.cells] == [one.id for one in before.cells]


def test_seeds_stay_one_series() -> None:
    found = with_distinct_labels(plan(*(model(lr=lr, seed=seed) for lr in (0.001, 0.01) for seed in (0, 1))))
    names = [one.settings.scheme.name for one in found.models]
    assert names == ["rope (lr 0.001)", "rope (lr 0.001)", "rope (lr 0.01)", "rope (lr 0.01)"]


def test_numbers_of_steps_are_one_series() -> None:
    """Trainings of 250 and of 500 steps were two series, so that no figure could draw one line over the steps."""
    before = plan(model(steps=250), model(steps=500), model(steps=500, seed=1))
    assert with_distinct_labels(before) is before
    rates = with_distinct_labels(plan(model(steps=250), model(steps=500), model(steps=500, lr=0.01)))
    assert [one.settings.scheme.name for one in rates.models] == [
        "rope",
        "rope (lr 0.003)",
        "rope (lr 0.01)",
    ]


def test_distinct_labels_stay() -> None:
    before = plan(model(), model(name="rope_2", lr=0.01), model(seed=1), model(seq_len=128))
    assert with_distinct_labels(before) is before


@pytest.mark.parametrize(
    "other",
    [
        {"build": {**FIXED, "num_examples": 3}},
        {"seed": 1},
        {"dtype": "bfloat16"},
    ],
)
def test_one_task_with_two_settings_is_an_error(other) -> None:
    one = model()
    cells = [cell(one), cell(one, **other)]
    with pytest.raises(ConfigError, match=r"^[^\n]*evaluated twice with different settings[^\n]*$"):
        with_distinct_labels(Plan([one], cells, []))


def test_tasks_of_different_names_are_not_shared() -> None:
    one = model()
    other = replace(cell(one), length=128)
    assert with_distinct_labels(Plan([one], [cell(one), other], [])).cells[1].length == 128


def test_the_note_of_selected_rates_names_what_differs(tmp_path) -> None:
    """Fault: with two lengths or sizes in the grid, the note listed "rope 0.001, rope 0.01" without them."""
    models = [
        model(seq_len=seq_len, lr=lr, muon_lr=20 * lr, seed=seed)
        for seq_len in (64, 128)
        for lr in (0.001, 0.01)
        for seed in (0, 1)
    ]
    models.append(model({"_target_": "posbench.schemes.nope.NoPE"}, "nope", lr=0.001))
    for one in models:
        best = (one.settings.train.seq_len == 64) == (one.settings.train.lr == 0.001)
        document = {"status": "ok", "log_history": [{"validation_loss": 1.0 if best else 2.0}]}
        write_bytes(tmp_path / one.id / "final" / "metadata.json", checksums.dump_json(document))
    chosen, note = select_learning_rates(plan(*models), tmp_path)
    assert note.endswith(", of 0.001, 0.01: rope (seq_len 64) 0.001, rope (seq_len 128) 0.01, nope 0.001.")
    assert len(chosen.models) == 5


def test_a_scheme_that_diverged_at_every_rate_is_one_line(tmp_path) -> None:
    """Fault: no test noticed that the first of the diverged rates was selected."""
    models = [model(lr=lr, muon_lr=20 * lr) for lr in (0.001, 0.01)]
    for one in models:
        document = {"status": "diverged", "log_history": [{"validation_loss": 1.0}]}
        write_bytes(tmp_path / one.id / "final" / "metadata.json", checksums.dump_json(document))
    with pytest.raises(
        ConfigError, match=r"diverged at every rate of grid\.lr \[0\.001, 0\.01\]: give lower rates$"
    ):
        select_learning_rates(plan(*models), tmp_path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"build": {**FIXED, "max_context": 256}}, "max_context 64 and 256"),
        ({"dtype": "bfloat16"}, "dtype float32 and bfloat16"),
        ({"seed": 1}, "seed 0 and 1"),
    ],
)
def test_two_settings_at_two_lengths_are_not_one_curve(changed, words) -> None:
    """Fault: the context gain compared other segments of text, or a report failed after everything was measured."""
    rope = model()
    long = replace(cell(rope, **changed), length=256)
    with pytest.raises(ConfigError, match=words):
        with_distinct_labels(Plan([rope], [cell(rope), long], []))
    with_distinct_labels(Plan([rope], [cell(rope), replace(cell(rope), length=256)], []))
