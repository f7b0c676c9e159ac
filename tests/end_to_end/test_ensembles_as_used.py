"""Ensembles beside extensions in a sweep, and for one model."""

import pandas as pd

SMALL = ("experiment=miniature", "grid.scheme=[learned,rope]", "train.steps=3", "runtime.launcher=inline")


def rows_of(tmp_path):
    return pd.read_parquet(tmp_path / "results" / "miniature" / "rows.parquet")


def test_their_rows_stand_where_extensions_have_theirs(script, tmp_path):
    answer = script(
        "sweep", *SMALL, "grid.extension=[pi]", "grid.ensemble=[nbce,chunks]", "grid.extended_schemes=[]"
    )
    assert answer.code == 0, answer
    rows = rows_of(tmp_path)
    assert set(rows["extension"]) == {"none", "pi", "nbce", "chunks"}
    ours = rows[rows["extension"].isin(["nbce", "chunks"])]
    assert set(ours["task"]) == {"perplexity", "key_value"}
    assert set(ours["scheme"]) == {"learned", "rope"}
    # No chunk is longer than a model of learned positions can read.
    assert "undefined" not in set(ours["status"])
    # One chunk is the model itself.
    short = rows[(rows["eval_len"] == 16) & (rows["metric"] == "nll") & (rows["protocol"] == "fixed_targets")]
    value = short.groupby(["scheme", "extension"])["value_sum"].sum()
    for scheme in ("learned", "rope"):
        assert abs(value[scheme, "chunks"] - value[scheme, "none"]) < 1e-3
        assert abs(value[scheme, "nbce"] - value[scheme, "none"]) > 1e-3
    before = set(rows["cell_id"])
    # Other settings are other cells; the models and the other cells stay.
    answer = script(
        "sweep", *SMALL, "grid.extension=[pi]", "grid.ensemble=[nbce,chunks]", "grid.extended_schemes=[]",
        "+overrides.ensemble.nbce.beta=0.5",
    )  # fmt: skip
    assert answer.code == 0, answer
    assert "0 to train" in answer.out
    changed = rows_of(tmp_path)
    assert set(changed.loc[~changed["cell_id"].isin(before), "extension"]) == {"nbce"}


def test_one_model_and_what_is_refused(script, tmp_path):
    model = (
        "scheme=rope",
        "size=tiny",
        "size.n_layers=1",
        "size.d_model=16",
        "size.n_heads=2",
        "train.seq_len=16",
    )
    model += ("train.steps=1", "train.batch_size=2", "train.val_batches=1")
    assert script("train", *model).code == 0
    asked = ("task=key_value", "task.build.num_contexts=2", "evaluation.length_multiples=[2]")
    answer = script("evaluate", *model, *asked, "ensemble=nbce")
    assert answer.code == 0, answer
    assert "nbce" in answer.out
    both = script("evaluate", *model, *asked, "ensemble=nbce", "extension=pi")
    assert (both.code, "choose one of the two" in both.err) == (2, True)
    wrong = script("evaluate", *model, *asked, "ensemble=nbce", "ensemble.build.pooling=best")
    assert (wrong.code, "choose one of mean, min_entropy" in wrong.err) == (2, True)
    # Running text whose questions are all of it leaves no room for a context: rows that say so.
    alone = script(
        "evaluate", *model, "task=non_overlapping", "task.build.num_examples=1", *asked[2:], "ensemble=chunks"
    )
    assert alone.code == 0, alone
    assert "undefined" in alone.out or "–" in alone.out or "n/a" in alone.out, alone.out
