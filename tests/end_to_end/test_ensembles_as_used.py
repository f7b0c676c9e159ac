"""Ensembles in a sweep, next to extensions, and in scripts/evaluate.py."""

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

SMALL = (
    "experiment=miniature",
    "grid.scheme=[learned,rope]",
    "train.steps=3",
    "runtime.launcher=inline",
    "figures=[]",
)


def rows_of(tmp_path):
    return pd.read_parquet(tmp_path / "results" / "miniature" / "rows.parquet")


def test_rows_have_the_ensemble_as_extension(script, tmp_path):
    result = script(
        "sweep", *SMALL, "grid.extension=[pi]", "grid.ensemble=[nbce,chunks]", "grid.extended_schemes=[]"
    )
    assert result.code == 0, result
    rows = rows_of(tmp_path)
    assert set(rows["extension"]) == {"none", "pi", "nbce", "chunks"}
    ours = rows[rows["extension"].isin(["nbce", "chunks"])]
    assert set(ours["task"]) == {"perplexity", "key_value"}
    assert set(ours["scheme"]) == {"learned", "rope"}
    # No chunk is longer than the training length, so learned positions are defined.
    assert "undefined" not in set(ours["status"])
    # With one chunk, the ensemble is the model itself.
    short = rows[(rows["eval_len"] == 16) & (rows["metric"] == "nll") & (rows["protocol"] == "fixed_targets")]
    value = short.groupby(["scheme", "extension"])["value_sum"].sum()
    for scheme in ("learned", "rope"):
        assert abs(value[scheme, "chunks"] - value[scheme, "none"]) < 1e-3
        assert abs(value[scheme, "nbce"] - value[scheme, "none"]) > 1e-3
    before = set(rows["cell_id"])
    # Other settings make other cells; the models and all other cells stay.
    result = script(
        "sweep", *SMALL, "grid.extension=[pi]", "grid.ensemble=[nbce,chunks]", "grid.extended_schemes=[]",
        "+overrides.ensemble.nbce.beta=0.5",
    )  # fmt: skip
    assert result.code == 0, result
    assert "0 to train" in result.out
    changed = rows_of(tmp_path)
    assert set(changed.loc[~changed["cell_id"].isin(before), "extension"]) == {"nbce"}


def test_evaluate_with_an_ensemble(script, tmp_path):
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
    retrieval = ("task=key_value", "task.build.num_contexts=2", "evaluation.length_multiples=[2]")
    result = script("evaluate", *model, *retrieval, "ensemble=nbce")
    assert result.code == 0, result
    assert "nbce" in result.out
    both = script("evaluate", *model, *retrieval, "ensemble=nbce", "extension=pi")
    assert (both.code, "choose one of the two" in both.err) == (2, True)
    wrong = script("evaluate", *model, *retrieval, "ensemble=nbce", "ensemble.build.pooling=best")
    assert (wrong.code, "choose one of mean, min_entropy" in wrong.err) == (2, True)
    # Text whose targets are all of it leaves no room for a context: rows without numbers.
    alone = script(
        "evaluate",
        *model,
        "task=non_overlapping",
        "task.build.num_examples=1",
        *retrieval[2:],
        "ensemble=chunks",
    )
    assert alone.code == 0, alone
    cells = [pd.read_parquet(path) for path in (tmp_path / "results" / "cells").rglob("*.parquet")]
    (rows,) = [one for one in cells if set(one["extension"]) == {"chunks"}]
    assert set(rows["status"]) == {"undefined"}
    assert rows["value_sum"].isna().all()
    assert "| rope + chunks | –† |" in alone.out
