"""The experiments that no other test runs: plan, training, evaluation and figures, with models too small to learn."""

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

SMALL = [
    "size={name: miniature, n_layers: 1, d_model: 16, n_heads: 2}",
    "train.steps=2",
    "train.batch_size=8",
    "runtime.launcher=inline",
]
FEW_OF_TEXT_AND_RECALL = [
    "++evaluate.fixed_targets.settings.num_examples=4",
    "++evaluate.key_value.settings.num_contexts=2",
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
    "length_generalization": [
        "grid.scheme=[shifted_learned,nope]",
        "grid.size=[]",
        *(f"++evaluate.{name}.settings.num_examples=4" for name in ("binary_majority", "unique_copy")),
    ],
    "mqar": [
        "grid.scheme=[rope]",
        *(f"++evaluate.{name}.settings.num_examples=2" for name in ("mqar", "mqar_4_pairs")),
    ],
    "density": [
        "~finetune.tuned_k1",
        "~finetune.tuned_k4",
        "~finetune.tuned_k8",
        "finetune.tuned_k2.train.steps=1",
        "++evaluate.fixed_targets.settings.num_examples=4",
        *(f"++evaluate.{name}.settings.num_contexts=2" for name in ("key_value", "position_resolution")),
    ],
    "leaderboard": ["grid.scheme=[rope,alibi]", "grid.seed=[0]", *FEW_OF_TEXT_AND_RECALL],
    "leaderboard_mqar": ["grid.scheme=[rope]", "grid.seed=[0]", "++evaluate.mqar.settings.num_examples=4"],
    "leaderboard_copy": ["grid.scheme=[rope]", "grid.seed=[0]", "++evaluate.copy.settings.num_examples=4"],
    "sensitivity": [
        "grid.scheme=[rope,alibi]",
        "grid.seed=[0]",
        "grid.lr=[0.001,0.003]",
        *FEW_OF_TEXT_AND_RECALL,
    ],
    "convergence": [
        "grid.scheme=[rope]",
        "grid.seed=[0]",
        "grid.train.steps=[1,2]",
        *FEW_OF_TEXT_AND_RECALL,
    ],
}
# Figures that these small models have rows for; there are no key tokens, and some extensions are removed above.
DRAWN = {
    "repetition": {"repetition"},
    "perplexity": {"context_gain", "loss_by_position"},
    "algorithmic": {"algorithmic"},
    "length_generalization": {"length_generalization"},
    "mqar": {"mqar"},
    "density": {"density"},
    "leaderboard": {"ranking", "effective_length", "retrieval_heat_map"},
    "leaderboard_mqar": {"mqar_ranking"},
    "leaderboard_copy": {"copy"},
    "sensitivity": {"ranking"},
    "convergence": {"convergence"},
}


@pytest.mark.parametrize("name", FEWER)
def test_an_experiment_from_plan_to_figures(script, tmp_path, name):
    small = [one for one in SMALL if f"grid.{one.partition('=')[0]}=" not in "".join(FEWER[name])]
    result = script("sweep", f"experiment={name}", *small, *FEWER[name])
    assert result.code == 0, result
    folder = tmp_path / "results" / name
    rows = pd.read_parquet(folder / "rows.parquet")
    assert rows["value_sum"].notna().all()
    assert set(rows["status"]) <= {"ok", "not_learned"}
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= DRAWN[name]
    if name == "convergence":  # one series over the lengths of the training
        assert set(rows["scheme"]) == {"rope"}
        assert rows["train_tokens"].nunique() == rows["model_id"].nunique() == 2
    if name in ("algorithmic", "length_generalization"):
        # Two rules, each evaluated on the models that were trained on it.
        assert rows.groupby("model_id")["variant"].nunique().eq(1).all()
        assert rows["model_id"].nunique() == 4
    if name == "density":
        plain = {"none", "pi_k1_5", "pi_k2", "pi_k3", "pi_k4", "pi_k8"}
        assert set(rows["extension"]) == plain | {"tuned_k2"}
        assert rows[rows["extension"].isin(plain)]["model_id"].nunique() == 1
