"""`import posbench as pb`: the numbers of the commands, one line for a mistake, and nothing heavy imported ahead."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import posbench as pb
from posbench.errors import ConfigError, DataError, PosbenchError
from posbench.evaluation import evaluator
from posbench.evaluation.evaluator import EvaluatedModel

sys.path.insert(0, str(Path(__file__).parents[1] / "lm"))
from pretrained_models import saved

SIZE = {"size.n_layers": 1, "size.d_model": 16, "size.n_heads": 2}
TRAIN = {"steps": 2, "seq_len": 16, "batch_size": 2, "val_batches": 1, "val_interval": 2}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for name in range(12):
        lines = (f"def f{name}(x):\n    return x + {line}\n" for line in range(60))
        (tmp_path / "text" / f"{name}.txt").write_text("".join(lines))
    return tmp_path / "text"


def settings(results: Path, cache: Path, text: Path) -> dict[str, object]:
    where = {"runtime.results_dir": results, "runtime.cache_dir": cache, "data.path": text}
    return {**SIZE, **where, "train.synthetic_fraction": 0}


def cells(results: Path) -> pd.DataFrame:
    files = sorted((results / "cells").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def test_its_numbers_are_those_of_the_commands(script, cache, text, tmp_path):
    given = settings(tmp_path / "python", cache, text)
    model = pb.train("alibi", data="files", settings=given, **TRAIN)
    extended = pb.load(
        model.folder, "window", settings={"extension.build.window": 8, "runtime.cache_dir": cache}
    )
    rows = pd.concat(
        [pb.evaluate(one, "fixed_targets", [16, 32], num_examples=2) for one in (model, extended)]
    )
    small = [f"{key}={value}" for key, value in SIZE.items()] + [
        f"train.{key}={value}" for key, value in TRAIN.items()
    ]
    small += ["scheme=alibi", "data=files", f"data.path={text}", "train.synthetic_fraction=0"]
    assert script("train", *small).code == 0
    lengths = ["evaluation.lengths=[16,32]", "evaluation.length_multiples=[]", "task.build.num_examples=2"]
    for extension in ([], ["extension=window", "extension.build.window=8"]):
        result = script("evaluate", *small, *lengths, *extension)
        assert result.code == 0, result
    expected = cells(tmp_path / "results")
    by = ["extension", "eval_len", "doc_id", "position", "metric"]

    def ordered(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.sort_values(by, ignore_index=True)

    pd.testing.assert_frame_equal(ordered(rows), ordered(expected), check_dtype=False)
    pd.testing.assert_frame_equal(ordered(pb.rows(tmp_path / "results")), ordered(rows), check_dtype=False)


def test_the_settings_of_a_trained_model_are_fixed(text, cache, tmp_path):
    """Fault: other settings of the model were ignored, and a length of numpy was a TypeError."""
    model = pb.train("alibi", data="files", settings=settings(tmp_path / "python", cache, text), **TRAIN)
    for given in ({"scheme": "rope"}, {"train.seed": 5}, {"data.path": "x"}, {"lm.dtype": "bfloat16"}):
        with pytest.raises(ConfigError, match="change nothing"):
            pb.load(model.folder, settings=given)
    with pytest.raises(ConfigError, match="data change nothing"):  # fault: ignored in silence
        pb.load(model.folder, data="stdlib")
    with pytest.raises(PosbenchError, match="lengths and length_multiples change nothing"):
        pb.evaluate(model, "key_value_uuid", 64)  # was measured at 75, 140 and 300 keys
    rows = pb.evaluate(model, "fixed_targets", np.int64(16), seed=np.int64(3), num_examples=2)
    assert set(rows["eval_seed"]) == {3}


def test_a_loss_that_is_not_finite_leaves_no_number(cache, text, tmp_path, monkeypatch):
    """Documents whose loss was NaN were dropped, and the loss of the rest was printed as that of all, with status ok."""
    given = settings(tmp_path / "python", cache, text)
    model = pb.train("alibi", data="files", settings=given, **TRAIN)
    measured = EvaluatedModel.run_task

    def run_task(self, cell, task, kernel):
        measures = measured(self, cell, task, kernel)
        if cell.length == 32:
            measures[0]["value_sum"] = math.nan
        return measures

    monkeypatch.setattr(EvaluatedModel, "run_task", run_task)
    rows = pb.evaluate(model, "fixed_targets", [16, 32], num_examples=2)
    assert rows.groupby("eval_len")["status"].unique().map(list).to_dict() == {16: ["ok"], 32: ["diverged"]}
    assert rows.loc[rows["eval_len"] == 32, "value_sum"].isna().all()


def test_a_logit_that_is_not_a_number_is_no_wrong_answer(cache, text, tmp_path, monkeypatch):
    """Fault: no test noticed NaN logits counted as wrong answers, an accuracy of 0 with status ok."""
    task = {"train.synthetic_fraction": 1, "train.synthetic_task": "mqar"}
    given = settings(tmp_path / "python", cache, text) | task
    model = pb.train("alibi", data="files", settings=given, **TRAIN)
    scored = evaluator.run_distributed

    def broken(method, prompts, should_stop):
        found = scored(method, prompts, should_stop)
        if prompts[0].length == 32:
            found[-1].logprob[0, -1] = math.nan
        return found

    monkeypatch.setattr(evaluator, "run_distributed", broken)
    rows = pb.evaluate(model, "mqar", [16, 32], num_examples=2)
    found = rows.groupby("eval_len")["status"].unique().map(list).to_dict()
    assert found == {16: ["not_learned"], 32: ["diverged"]}
    assert rows.loc[rows["eval_len"] == 32, "value_sum"].isna().all()


def test_a_pretrained_model(cache, text, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    saved(tmp_path / "qwen", "qwen3", head_dim=16)
    where = {"runtime.results_dir": tmp_path / "results", "runtime.cache_dir": cache, "data.path": text}
    model = pb.load(tmp_path / "qwen", "yarn", data="files", settings=where)
    rows = pb.evaluate(model, "fixed_targets", 64, num_examples=2)
    assert set(rows["status"]) == {"ok"}
    assert set(rows["extension"]) == {"yarn"}
    assert set(rows["eval_len"]) == {64}


def test_an_import_is_light():
    heavy = "torch", "transformers", "pandas", "matplotlib", "hydra", "numpy"
    code = f"import posbench, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_choices_are_those_of_the_list():
    found = pb.choices("schemes")
    assert list(found.columns) == ["name", "kind", "paper", "summary"]
    assert {"rope", "alibi"} <= set(found["name"])
    pd.testing.assert_frame_equal(pb.choices("scheme"), found)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: pb.choices("scheme_"), "unknown group"),
        (lambda: pb.train("rop"), "did you mean 'rope'?"),
        (lambda: pb.train("rope", stepz=4), "did you mean 'train.steps'?"),
        (lambda: pb.train("rope", steps=0), "train.steps 0"),
        (lambda: pb.load("x", settings={"ensemble": 4}), "ensemble 4: give a name"),
        (lambda: pb.train("nope", settings={"scheme.build._target_": "mine.Root"}), "add allow=[mine]"),
        (lambda: pb.load("tests"), "no model in tests"),
        (lambda: pb.evaluate("tests"), "no model in tests"),
        (lambda: pb.train("rope", settings={"scheme": "alibi"}), "as the argument of train"),
        (lambda: pb.train("rope", seed=1, settings={"train.seed": 2}), "as the argument of train"),
        (lambda: pb.train("rope", settings=["train.seed=2"]), "give values by name"),
        (lambda: pb.load("x", settings={"task": "key_value"}), "as the argument of evaluate"),
        (lambda: pb.load("x", settings={"evaluation.seed": 5}), "as the argument of evaluate"),
        (lambda: pb.load("x", settings={"data": "pg19"}), "as the argument of load"),
        (lambda: pb.load("x", settings={"train.seed": 5}), "train changes nothing with lm.kind hugging_face"),
        (lambda: pb.load(None), "model None: give a folder"),
        (lambda: pb.evaluate("x", length=16.0), "length 16.0: give a whole number of tokens"),
        (lambda: pb.rows("configs"), "neither rows.parquet nor cells"),
        (lambda: pb.rows("results/published"), "give one of results/published/algorithmic"),
    ],
)
def test_a_mistake_is_one_line(call, expected, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(PosbenchError) as error:
        call()
    assert isinstance(error.value, ConfigError | DataError)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_training_that_stops_early_is_an_error(cache, text, tmp_path):
    """Fault: the unfinished model was returned as a pretrained one, or the error named another cause."""
    given = settings(tmp_path / "python", cache, text) | {"runtime.max_minutes": 1e-4}
    with pytest.raises(PosbenchError, match="the training has stopped before its end"):
        pb.train("alibi", data="files", settings=given, **TRAIN | {"steps": 10**6})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pb.choices(3), "unknown group '3'"),
        (lambda: pb.rows(3), "folder 3: give the path"),
        (lambda: pb.train("rope", settings={3: 4}), "settings 3: give names"),
    ],
)
def test_arguments_of_other_types_are_one_line(call, words):
    """Fault: these were a TypeError."""
    with pytest.raises(PosbenchError, match=words):
        call()


def test_rows_of_a_trained_model_stay_beside_it(cache, text, tmp_path, monkeypatch):
    """Fault: runtime.results_dir in the settings of a trained model was ignored, and one with ~ was refused."""
    model = pb.train("alibi", data="files", settings=settings(tmp_path / "python", cache, text), **TRAIN)
    with pytest.raises(ConfigError, match=r"runtime\.results_dir.*own results folder"):
        pb.load(model.folder, settings={"runtime.results_dir": tmp_path / "elsewhere"})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pb.load(model.folder, settings={"runtime.results_dir": "~/python"}).folder == model.folder
