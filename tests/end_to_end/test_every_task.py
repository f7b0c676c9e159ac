"""Every task of configs/task, by the command of the README, on a native model and on a local pretrained model."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lm"))
from pretrained_models import saved

pytestmark = pytest.mark.slow

TASKS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "task").glob("*.yaml"))
TASKS.remove("lm_eval")  # needs tasks of its own: tests/export/test_lm_eval.py
SMALL = {
    "key_value": ["task.build.num_contexts=2"],
    "attention": ["task.build.num_contexts=1"],
    "position_resolution": ["task.build.num_contexts=2"],
    "algorithmic": [],
    "key_value_uuid": [
        "task.build.num_contexts=1",
        "task.build.num_keys=[3]",
        "task.build.num_positions=2",
        "evaluation.length_multiples=[]",
    ],
    "passkey": [
        "task.build.num_examples=1",
        "task.build.num_depths=2",
        "evaluation.length_multiples=[]",
        "evaluation.lengths=[640]",
    ],
    "multi_document": [
        "task.build.num_examples=2",
        "task.build.num_documents=[2]",
        "task.build.max_new_tokens=4",
        "evaluation.length_multiples=[]",
    ],
    "sliding": ["task.build.num_examples=1", "task.build.stride=16"],
    "length_generalization": [
        "task.build.num_examples=4",
        "task.build.ranges=[[0,15],[16,30]]",
        "evaluation.length_multiples=[]",
    ],
    "mqar": ["task.build.num_examples=1"],
    "flip_flop": ["task.build.num_examples=1"],
}
# The training of models for tasks on sequences of their own, and settings of these tasks for pretrained models.
TRAINED = {
    "algorithmic": "copy",
    "length_generalization": "unique_copy",
    **{task: task for task in ("mqar", "flip_flop", "multi_value", "multi_query", "variable_tracking")},
}
WORDS = {
    task: ["task.build.form=words", "evaluation.length_multiples=[]", "evaluation.lengths=[900]"]
    for task in ("multi_value", "multi_query", "variable_tracking")
}
MODEL = [
    *("scheme=rope", "size.name=mini", "size.n_layers=1", "size.d_model=16", "size.n_heads=2", "data=stdlib"),
    *(
        "train.seq_len=32",
        "train.steps=4",
        "train.batch_size=4",
        "train.val_interval=4",
        "train.val_batches=1",
    ),
]


def settings(task: str, questions: Path) -> list[str]:
    own = SMALL.get(task, ["task.build.num_examples=1"])
    lengths = [] if any("evaluation" in one for one in own) else ["evaluation.length_multiples=[1,2]"]
    file = [f"task.build.path={questions}"] if task == "multi_document" else []
    return [f"task={task}", *own, *lengths, *file]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the format of Lost in the Middle."""
    path = tmp_path_factory.mktemp("questions") / "qa.jsonl"
    lines = [
        {
            "question": f"what is number {name}",
            "answers": [name],
            "ctxs": [
                {"title": f"On {name}", "text": f"The number is {name}.", "hasanswer": True, "isgold": True}
            ],
        }
        for name in ("seventeen", "forty", "ninety", "eleven")
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def rows_of(results: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in (results / "cells").rglob("*.parquet")])


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with one trained model by the synthetic task of its training."""
    return tmp_path_factory.mktemp("trainings")


@pytest.mark.parametrize("task", TASKS)
def test_on_a_native_model(script, tmp_path, questions, trainings, task):
    trained = [*MODEL, f"train.synthetic_task={TRAINED[task]}"] if task in TRAINED else MODEL
    kept = trainings / TRAINED.get(task, "text")
    if not kept.exists():
        assert script("train", *trained).code == 0
        shutil.copytree(tmp_path / "results", kept)
    shutil.copytree(kept, tmp_path / "results", dirs_exist_ok=True)
    result = script("evaluate", *trained, *settings(task, questions))
    assert result.code == 0, result
    rows = rows_of(tmp_path / "results")
    assert len(rows)
    assert set(rows["status"]) <= {"ok", "not_learned"}


@pytest.mark.parametrize("task", TASKS)
def test_on_a_pretrained_model(script, tmp_path, questions, task, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    saved(tmp_path / "model", "llama")
    pretrained = ["lm=hugging_face", f"lm.name={tmp_path / 'model'}", "data=stdlib", "extension=yarn"]
    result = script("evaluate", *pretrained, *settings(task, questions), *WORDS.get(task, []))
    assert result.code == 0, result
    rows = rows_of(tmp_path / "results")
    assert set(rows["status"]) == {"ok"}, rows["status"].value_counts()
    assert set(rows["extension"]) == {"yarn"}
