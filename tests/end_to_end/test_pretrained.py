"""Pretrained models through scripts/evaluate.py, from a local folder and without a network."""

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lm"))
from pretrained_models import BEFORE, TRAIN_LEN, saved


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and a text, as a user has them."""
    where = tmp_path_factory.mktemp("pretrained")
    saved(where / "plain", "qwen3", head_dim=16)
    linear = {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}
    saved(where / "scaled", "llama", rope_parameters=linear)
    saved(where / "table", "gpt2", n_positions=TRAIN_LEN, n_embd=32, n_layer=2, n_head=4)
    (where / "text").mkdir()
    for name in range(12):
        lines = (f"def f{name}(x):\n    return x + {line}\n" for line in range(60))
        (where / "text" / f"{name}.txt").write_text("".join(lines))
    return where


@pytest.fixture
def evaluate(script, folders, tmp_path, monkeypatch):
    """Measure a model of `folders`; the answer and all rows so far."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def call(model: str, *overrides: str):
        data = ("data=files", f"data.path={folders / 'text'}")
        answer = script("evaluate", "lm=hugging_face", f"lm.name={folders / model}", *data, *overrides)
        cells = sorted((tmp_path / "results" / "cells").rglob("*.parquet"))
        return answer, pd.concat([pd.read_parquet(path) for path in cells]) if cells else pd.DataFrame()

    return call


SHORT = ("task=fixed_targets", "task.build.num_examples=2", "evaluation.length_multiples=[1,2]")


def refused(answer, *said: str) -> None:
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert answer.code == 2, answer
    assert len(errors) == 1, answer.err
    for words in said:
        assert words in errors[0], (words, errors[0])


def test_a_pretrained_model_and_an_extension_of_it(evaluate):
    answer, rows = evaluate("plain", *SHORT)
    assert answer.code == 0, answer
    assert set(rows["scheme"]) == {"plain"}
    assert set(rows["train_len"]) == {TRAIN_LEN}
    assert set(rows["eval_len"]) == {TRAIN_LEN, 2 * TRAIN_LEN}
    assert (rows["status"].eq("ok") & rows["train_tokens"].eq(0) & rows["value_sum"].notna()).all()
    assert "plain" in answer.out
    answer, rows = evaluate("plain", *SHORT, "extension=yarn")
    assert answer.code == 0, answer
    assert set(rows["extension"]) == {"none", "yarn"}
    means = rows[rows["metric"] == "nll"].groupby(["extension", "eval_len"])["value_sum"].mean()
    assert means["none", TRAIN_LEN] == means["yarn", TRAIN_LEN], "a factor of 1"
    assert means["none", 2 * TRAIN_LEN] != means["yarn", 2 * TRAIN_LEN]
    # What is measured is not measured again.
    assert "0 to measure" in evaluate("plain", *SHORT, "extension=yarn")[0].out


def test_its_own_scaling_is_in_place_until_another_is_asked_for(evaluate):
    answer, rows = evaluate("scaled", *SHORT)
    assert answer.code == 0, answer
    assert set(rows["extension"]) == {"own_linear"}
    answer, rows = evaluate("scaled", *SHORT, "extension=pi")
    assert "pi takes the place of own_linear" in answer.out
    means = rows[rows["metric"] == "nll"].groupby(["extension", "eval_len"])["value_sum"].mean()
    assert means["own_linear", TRAIN_LEN] != means["pi", TRAIN_LEN], "a factor of 1"
    assert means["own_linear", 2 * TRAIN_LEN] == means["pi", 2 * TRAIN_LEN], "both of factor 2"


def test_a_black_box_measures_what_its_conversion_does(evaluate):
    """Through the whole pipeline, with a scaling that was asked for."""
    scaling = f"+lm.rope_scaling={{rope_type: yarn, factor: 4.0, {', '.join(f'{k}: {v}' for k, v in BEFORE.items())}}}"
    answer, rows = evaluate("plain", *SHORT, scaling)
    assert answer.code == 0, answer
    answer, both = evaluate("plain", *SHORT, scaling, "lm.black_box=true")
    assert answer.code == 0, answer
    assert set(both["extension"]) == {"own_yarn"}
    assert both["model_id"].nunique() == 2
    by = ["eval_len", "example", "metric"]
    boxed = both[~both["model_id"].isin(rows["model_id"])]
    assert set(boxed["kernel"]) == {"transformers"}
    pairs = rows.merge(boxed, on=by)
    assert len(pairs) == len(rows)
    assert (pairs["value_sum_x"] - pairs["value_sum_y"]).abs().max() < 1e-2
    answer, _ = evaluate("table", *SHORT[:2], "evaluation.length_multiples=[1]")
    assert answer.code == 0, answer


def test_retrieval_of_ordinary_tokens_and_in_text(evaluate):
    answer, rows = evaluate("plain", "task=key_value", "task.build.num_contexts=1")
    assert answer.code == 0, answer
    assert {"exact_match", "rank"} <= set(rows["metric"])
    task = (
        "task=key_value_uuid",
        "task.build.num_contexts=1",
        "task.build.num_positions=2",
        "task.build.num_keys=[2]",
    )
    answer, rows = evaluate("plain", *task)
    assert answer.code == 0, answer
    assert {"exact_match", "logprob"} <= set(rows["metric"])
    for black_box in ("false", "true"):
        answer, rows = evaluate("plain", *task, "task.build.generate=true", f"lm.black_box={black_box}")
        assert answer.code == 0, answer
        assert "substring_match" in set(rows["metric"])


def test_what_cannot_be(evaluate):
    refused(evaluate("table", *SHORT)[0], f"{2 * TRAIN_LEN} tokens", f"table of {TRAIN_LEN} positions")
    refused(
        evaluate("table", *SHORT, "extension=yarn")[0], "extension yarn on table", "black box", "rope_scaling"
    )
    refused(evaluate("nowhere", *SHORT)[0], "there is no such folder")
    refused(evaluate("text", *SHORT)[0], "text' cannot be loaded", "config.json")
    refused(evaluate("plain", *SHORT, "lm.kind=api")[0], "lm.kind 'api'", "hugging_face")
    refused(evaluate("plain", *SHORT, "lm.name=nobody/nothing")[0], "'nobody/nothing'", "HF_HUB_OFFLINE")
    refused(evaluate("plain", *SHORT, "+lm.nam=x")[0], "'lm.nam'")
