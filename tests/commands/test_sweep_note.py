"""What captions of a sweep say of its trainings."""

import pytest

from posbench.commands.sweep import training_note
from posbench.config.checks import check
from posbench.config.schema import FinetuneSettings, GridSettings, SweepScript, TrainSettings
from posbench.errors import ConfigError


def test_captions_say_what_a_fine_tuned_model_is() -> None:
    """Fault: a figure had "rope + pi_200" and nothing beside it said what 200 is."""
    tuned = {
        "pi_200": FinetuneSettings("pi", {"factor": 4}, {"steps": 200, "seq_len": 256}),
        "yarn": FinetuneSettings(train={"steps": 20}),
    }
    script = SweepScript(grid=GridSettings(scheme=["rope"]), finetune=tuned)
    note = "Fine-tuned, with the extension in place: pi_200 (pi, factor 4, steps 200, seq_len 256), yarn (yarn, steps 20)."
    assert training_note(script).endswith(note)


def test_captions_say_what_models_of_several_synthetic_tasks_are_trained_on() -> None:
    """The caption of copying and reversing once named a text, which its models are not trained on."""
    train = TrainSettings(synthetic_fraction=1.0)
    grid = GridSettings(scheme=["rope"], train={"synthetic_task": ["copy", "unique_copy"]})
    note = "All training sequences are synthetic (copy or unique copy)."
    assert training_note(SweepScript(grid=grid, train=train)).startswith(note)


def test_captions_have_the_share_of_whole_sequences() -> None:
    """Fault: a caption had "30%" for 1 of 4 sequences, and "50%" for none of 1."""
    train = TrainSettings(synthetic_fraction=0.3, batch_size=4)
    assert training_note(SweepScript(train=train)).startswith("25% of the training sequences")


@pytest.mark.parametrize(("fraction", "size"), [(0.5, 1), (0.1, 4), (0.01, 48), (0.9, 4)])
def test_a_fraction_of_no_sequence_or_of_all_is_refused(fraction: float, size: int) -> None:
    """Fault: it was rounded to 0 or to all sequences in silence."""
    with pytest.raises(
        ConfigError, match=f"synthetic_fraction {fraction} of train.batch_size {size} is [04] whole"
    ):
        check(TrainSettings(synthetic_fraction=fraction, batch_size=size))


def test_captions_describe_questions_about_records() -> None:
    """Fault: a caption had "synthetic (recall questions at ends)", whose ends are those of the list of records."""
    train = TrainSettings(synthetic_task="recall_questions_at_ends")
    note = "50% of the training sequences are synthetic (records, with questions about the first and the last quarter of them)"
    assert training_note(SweepScript(train=train)).startswith(note)
