"""grid.lr: trains every scheme at each rate, evaluates the best by validation loss, and captions name the rates."""

import pandas as pd

from posbench.training import checkpoints

SMALL = (
    "experiment=miniature",
    "runtime.launcher=inline",
    "grid.scheme=[nope,rope]",
    "grid.extension=[]",
    "grid.seed=[0,1]",
    "train.steps=6",
    "~evaluate.non_overlapping",
    "~evaluate.prefix",
    "~evaluate.key_value",
    "~evaluate.attention",
    "figures=[]",
)


def test_the_best_rate_of_each_scheme_is_evaluated_and_reported(script, tmp_path):
    result = script("sweep", *SMALL, "grid.lr=[0.00001,0.01]")
    assert result.code == 0, result
    results = tmp_path / "results"
    trained = {
        path.name: checkpoints.read_metadata(path / "final") for path in (results / "models").iterdir()
    }
    assert len(trained) == 8
    rates = {
        (one["settings"]["train"]["lr"], one["settings"]["train"]["muon_lr"]) for one in trained.values()
    }
    assert {rate for rate, _ in rates} == {1e-5, 1e-2}
    assert len({round(matrix / rate, 6) for rate, matrix in rates}) == 1
    rows = pd.read_parquet(results / "miniature" / "rows.parquet")
    assert rows["model_id"].nunique() == 4
    assert {trained[model]["settings"]["train"]["lr"] for model in rows["model_id"]} == {1e-2}
    note = (
        "Learning rate of each scheme by the lowest validation loss at the training length, of 1e-05, 0.01: "
        "nope 0.01, rope 0.01."
    )
    assert note in result.out
    captions = list((results / "miniature" / "tables").glob("*.md"))
    assert captions
    assert all(note in path.read_text() for path in captions)
    again = script("sweep", *SMALL, "grid.lr=[0.00001,0.01]")
    assert ", 0 to measure" in again.out


def test_grid_lr_and_grid_train_lr_exclude_each_other(script):
    result = script("sweep", *SMALL, "grid.lr=[0.01]", "+grid.train.lr=[0.01]")
    assert result.code == 2
    assert "grid.lr and grid.train.lr" in result.err
