"""Pretrained models through scripts/evaluate.py, from a local folder and without a network."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from posbench.lm.interface import Generated, Prompt
from posbench.lm.native import NativeLM
from posbench.tasks.prompting import decode_until_special

sys.path.insert(0, str(Path(__file__).parents[1] / "lm"))
from pretrained_models import BEFORE, TRAIN_LEN, VOCABULARY, saved


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pretrained models and texts."""
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
    """Measures a model of `folders`; returns the result and all rows so far."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def call(model: str, *overrides: str):
        data = ("data=files", f"data.path={folders / 'text'}")
        result = script("evaluate", "lm=hugging_face", f"lm.name={folders / model}", *data, *overrides)
        cells = sorted((tmp_path / "results" / "cells").rglob("*.parquet"))
        return result, pd.concat([pd.read_parquet(path) for path in cells]) if cells else pd.DataFrame()

    return call


SHORT = ("task=fixed_targets", "task.build.num_examples=2", "evaluation.length_multiples=[1,2]")


def assert_error(result, *expected: str) -> None:
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.code == 2, result
    assert len(errors) == 1, result.err
    for words in expected:
        assert words in errors[0], (words, errors[0])


def test_a_pretrained_model_and_an_extension_of_it(evaluate):
    result, rows = evaluate("plain", *SHORT)
    assert result.code == 0, result
    assert set(rows["scheme"]) == {"plain"}
    assert set(rows["train_len"]) == {TRAIN_LEN}
    assert set(rows["eval_len"]) == {TRAIN_LEN, 2 * TRAIN_LEN}
    assert (rows["status"].eq("ok") & rows["train_tokens"].eq(0) & rows["value_sum"].notna()).all()
    assert "plain" in result.out
    result, rows = evaluate("plain", *SHORT, "extension=yarn")
    assert result.code == 0, result
    assert set(rows["extension"]) == {"none", "yarn"}
    means = rows[rows["metric"] == "nll"].groupby(["extension", "eval_len"])["value_sum"].mean()
    assert means["none", TRAIN_LEN] == means["yarn", TRAIN_LEN], "a factor of 1"
    assert means["none", 2 * TRAIN_LEN] != means["yarn", 2 * TRAIN_LEN]
    # Measured cells are not measured again.
    assert "0 to measure" in evaluate("plain", *SHORT, "extension=yarn")[0].out


def test_the_scaling_of_the_model_is_replaced_by_an_extension(evaluate):
    result, rows = evaluate("scaled", *SHORT)
    assert result.code == 0, result
    assert set(rows["extension"]) == {"own_linear"}
    result, rows = evaluate("scaled", *SHORT, "extension=pi")
    assert "pi replaces own_linear" in result.out
    means = rows[rows["metric"] == "nll"].groupby(["extension", "eval_len"])["value_sum"].mean()
    assert means["own_linear", TRAIN_LEN] != means["pi", TRAIN_LEN], "a factor of 1"
    assert means["own_linear", 2 * TRAIN_LEN] == means["pi", 2 * TRAIN_LEN], "both of factor 2"


def test_a_black_box_equals_its_conversion(evaluate):
    """With a RoPE scaling from the settings."""
    scaling = f"+lm.rope_scaling={{rope_type: yarn, factor: 4.0, {', '.join(f'{k}: {v}' for k, v in BEFORE.items())}}}"
    result, rows = evaluate("plain", *SHORT, scaling)
    assert result.code == 0, result
    result, both = evaluate("plain", *SHORT, scaling, "lm.black_box=true")
    assert result.code == 0, result
    assert set(both["extension"]) == {"own_yarn"}
    assert both["model_id"].nunique() == 2
    by = ["eval_len", "example", "metric"]
    boxed = both[~both["model_id"].isin(rows["model_id"])]
    assert set(boxed["kernel"]) == {"transformers"}
    pairs = rows.merge(boxed, on=by)
    assert len(pairs) == len(rows)
    assert (pairs["value_sum_x"] - pairs["value_sum_y"]).abs().max() < 1e-2
    result, _ = evaluate("table", *SHORT[:2], "evaluation.length_multiples=[1]")
    assert result.code == 0, result


def test_retrieval_of_tokens_and_of_text(evaluate):
    result, rows = evaluate("plain", "task=key_value", "task.build.num_contexts=1")
    assert result.code == 0, result
    assert {"exact_match", "rank"} <= set(rows["metric"])
    task = (
        "task=key_value_uuid",
        "task.build.num_contexts=1",
        "task.build.num_positions=2",
        "task.build.num_keys=[2]",
    )
    result, rows = evaluate("plain", *task)
    assert result.code == 0, result
    assert {"exact_match", "logprob"} <= set(rows["metric"])
    for black_box in ("false", "true"):
        result, rows = evaluate("plain", *task, "task.build.generate=true", f"lm.black_box={black_box}")
        assert result.code == 0, result
        assert "substring_match" in set(rows["metric"])


def test_bad_input(evaluate):
    boxed = "lm.black_box=true"
    assert_error(
        evaluate("table", *SHORT, boxed)[0], f"{2 * TRAIN_LEN} tokens", f"table of {TRAIN_LEN} positions"
    )
    assert_error(
        evaluate("table", *SHORT, "extension=yarn", boxed)[0],
        "extension yarn on table",
        "black box",
        "rope_scaling",
    )
    assert_error(evaluate("table", *SHORT, "extension=yarn")[0], "YaRN needs a scheme with inv_freq; Learned")
    assert_error(evaluate("nowhere", *SHORT)[0], "there is no such folder")
    assert_error(evaluate("text", *SHORT)[0], "text' cannot be loaded", "config.json")
    assert_error(evaluate("plain", *SHORT, "lm.kind=api")[0], "lm.kind 'api'", "hugging_face")
    assert_error(evaluate("plain", *SHORT, "lm.name=nobody/nothing")[0], "'nobody/nothing'", "HF_HUB_OFFLINE")
    assert_error(evaluate("plain", *SHORT, "+lm.nam=x")[0], "'lm.nam'")


def sidecars(results: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((results / "cells").rglob("*.json"))]


@pytest.mark.parametrize(
    "task",
    [
        ("task=fixed_targets", "task.build.num_examples=4"),
        ("task=sliding", "task.build.num_examples=2", "task.build.stride=16"),
        ("task=non_overlapping", "task.build.num_examples=2"),
        ("task=key_value", "task.build.num_contexts=1"),
    ],
    ids=lambda task: task[0],
)
def test_the_bos_stands_before_every_prompt_at_every_length(evaluate, monkeypatch, tmp_path, task):
    """It stood before 0, 0 and 100% of the prompts of fixed_targets at three lengths, which confounded them."""
    read: list[Prompt] = []
    inner = NativeLM.loglikelihood
    monkeypatch.setattr(NativeLM, "loglikelihood", lambda lm, some: inner(lm, read.extend(some) or some))
    result, _ = evaluate("plain", *task, "evaluation.length_multiples=[1,2]")
    assert result.code == 0, result
    assert {prompt.length for prompt in read} == {TRAIN_LEN, 2 * TRAIN_LEN}
    assert {int(prompt.context[0]) for prompt in read} == {0}
    for sidecar in sidecars(tmp_path / "results"):
        assert "begins with id 0, at every length" in sidecar["first_token"]
        assert sidecar["difference_from_transformers"] < 1e-5
        assert sidecar["difference_lengths"] == [TRAIN_LEN, 2 * TRAIN_LEN + 1]
        assert sidecar["eos_ids"] == [1]
    assert "Every prompt begins with the token that begins a text, at every length" in result.out


def test_ids_that_end_an_answer_enter_the_id(evaluate, folders, tmp_path):
    """Fault: another eos in generation_config.json changed generated answers, and the rows of the first were found."""
    shutil.copytree(folders / "plain", tmp_path / "plain")
    file = tmp_path / "plain" / "generation_config.json"
    for eos, cells in ((1, 1), (1, 1), ([1, 5], 2)):
        file.write_text(json.dumps({"eos_token_id": eos}))
        result, rows = evaluate(str(tmp_path / "plain"), *SHORT, "evaluation.length_multiples=[1]")
        assert result.code == 0, result
        assert rows["cell_id"].nunique() == cells
    assert sorted(sidecar["eos_ids"] for sidecar in sidecars(tmp_path / "results")) == [[1], [1, 5]]


def test_the_file_of_a_tokenizer_states_no_bos(evaluate, folders):
    """Fault: "not a tokenizer that can be loaded", of a file that is one."""
    file = folders / "plain" / "tokenizer.json"
    tokenizer = ("data.tokenizer.kind=hugging_face", f"data.tokenizer.name={file}")
    assert_error(evaluate("plain", *SHORT, *tokenizer)[0], "tokenizer.json", "the folder of the tokenizer")


def test_text_after_eos_is_no_answer(evaluate, monkeypatch):
    """ " I do not know.</s> VALUE" counted as right, and answers had room for 41 tokens in place of 100."""
    seen: list[tuple[int, str]] = []

    def generate(lm, prompts):
        for prompt in prompts:
            corpus = prompt.doc["corpus"]
            encode = corpus.tokenizer.encode
            values = np.concatenate([encode(value) for value in prompt.doc["values"]])
            ids = np.array([*encode(" I do not know."), 1, *values, *[2] * 100])[: prompt.max_new_tokens]
            seen.append((prompt.max_new_tokens, decode_until_special(corpus, ids)))
            yield Generated(np.tile(ids, (len(prompt.continuations), 1)))

    monkeypatch.setattr(NativeLM, "generate", generate)
    task = (
        "task=key_value_uuid",
        "task.build.num_contexts=1",
        "task.build.num_positions=2",
        "task.build.num_keys=[2]",
    )
    result, rows = evaluate("plain", *task, "task.build.generate=true")
    assert result.code == 0, result
    assert set(seen) == {(100, " I do not know.")}
    assert rows[rows["metric"] == "substring_match"]["value_sum"].eq(0).all()
    assert rows[rows["metric"] == "predicted_in_context"]["value_sum"].eq(0).all()


def test_a_conversion_that_differs_is_refused(evaluate, monkeypatch):
    """Nothing compared a converted model with transformers."""
    windows = [4] * 4
    monkeypatch.setattr("posbench.lm.hf_positions.layer_windows", lambda config: windows)
    assert_error(evaluate("plain", *SHORT)[0], "plain as converted", "differ from", "lm.black_box=true")
    result, rows = evaluate("plain", *SHORT, "lm.black_box=true")
    assert result.code == 0, result
    assert set(rows["kernel"]) == {"transformers"}


def test_files_that_do_not_fit_together(evaluate, folders):
    """For a tokenizer past the embedding, the error named the model's own, which it is; others were tracebacks."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folders / "plain", folders / name, dirs_exist_ok=True))

    tokenizer = AutoTokenizer.from_pretrained(folders / "plain")
    tokenizer.add_tokens([f"[EXTRA{n}]" for n in range(VOCABULARY - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(copy("padded"))
    assert_error(evaluate("padded", *SHORT)[0], "'[PAD]' (id 300)", "end at 299", "remove")
    (copy("pointer") / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert_error(evaluate("pointer", *SHORT)[0], "tokenizer")
    (copy("cut") / "model.safetensors").write_bytes(b"12345678")
    assert_error(evaluate("cut", *SHORT)[0], "model.safetensors")
