"""What captions of a sweep say of its trainings."""

from posbench.commands.sweep import training_note
from posbench.config.schema import FinetuneSettings, GridSettings, SweepScript


def test_captions_say_what_a_fine_tuned_model_is() -> None:
    """Fault: a figure had "rope + pi_200" and nothing beside it said what 200 is."""
    tuned = {
        "pi_200": FinetuneSettings("pi", {"factor": 4}, {"steps": 200, "seq_len": 256}),
        "yarn": FinetuneSettings(train={"steps": 20}),
    }
    script = SweepScript(grid=GridSettings(scheme=["rope"]), finetune=tuned)
    note = "Fine-tuned, with the extension in place: pi_200 (pi, factor 4, steps 200, seq_len 256), yarn (yarn, steps 20)."
    assert training_note(script).endswith(note)
