"""The experiments that no other test runs: each is planned, trained, measured and drawn, with models too small to learn."""

import pandas as pd
import pytest

SMALL = [
    "size={name: miniature, n_layers: 1, d_model: 16, n_heads: 2}",
    "train.steps=2",
    "train.batch_size=8",
    "runtime.launcher=inline",
]
FEWER = {
    "repetition": [
        "grid.scheme=[rope]",
        "grid.extension=[rerope]",
        *(f"++evaluate.{name}.settings.num_examples=4" for name in ("natural", "repeated", "far")),
    ],
    "perplexity": [
        "grid.scheme=[rope]",
        "grid.extension=[window]",
        *(f"++evaluate.{name}.settings.num_examples=4" for name in ("fixed_targets", "prefix", "longppl")),
    ],
    "algorithmic": [
        "grid.scheme=[nope,t5]",
        *(f"++evaluate.{name}.settings.num_examples=4" for name in ("copy", "reverse")),
    ],
    "density": [
        "~finetune.tuned_k1",
        "~finetune.tuned_k4",
        "~finetune.tuned_k8",
        "finetune.tuned_k2.train.steps=1",
        "++evaluate.fixed_targets.settings.num_examples=4",
        *(f"++evaluate.{name}.settings.num_contexts=2" for name in ("key_value", "position_resolution")),
    ],
}
# What the smallest models of all leave out: key tokens, and extensions that were taken away above.
DRAWN = {
    "repetition": {"repetition"},
    "perplexity": {"context_gain", "loss_by_position"},
    "algorithmic": {"algorithmic"},
    "density": {"density"},
}


@pytest.mark.parametrize("name", FEWER)
def test_an_experiment_from_plan_to_picture(script, tmp_path, name):
    answer = script("sweep", f"experiment={name}", *SMALL, *FEWER[name])
    assert answer.code == 0, answer
    folder = tmp_path / "results" / name
    rows = pd.read_parquet(folder / "rows.parquet")
    assert rows["value_sum"].notna().all()
    assert set(rows["status"]) <= {"ok", "not_learned"}
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= DRAWN[name]
    if name == "algorithmic":
        # Two rules, each asked of the models that were trained on it.
        assert rows.groupby("model_id")["variant"].nunique().eq(1).all()
        assert rows["model_id"].nunique() == 4
    if name == "density":
        plain = {"none", "pi_k1_5", "pi_k2", "pi_k3", "pi_k4", "pi_k8"}
        assert set(rows["extension"]) == plain | {"tuned_k2"}
        assert rows[rows["extension"].isin(plain)]["model_id"].nunique() == 1
