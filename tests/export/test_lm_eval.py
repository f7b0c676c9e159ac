"""lm-evaluation-harness: its tasks on models of posbench, and exported models in the harness itself, all offline."""

import json
import logging
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml

from posbench.config.schema import ExtensionSettings
from posbench.data.corpus import open_corpus
from posbench.errors import ConfigError, IncompatibleError
from posbench.export.source_model import load_trained
from posbench.instantiate import allow
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.native import NativeLM
from posbench.report.figures import house_style
from posbench.report.figures.figure_data import FigureData
from posbench.report.figures.panels import draw
from posbench.runtime.device import autocast_context
from posbench.tasks.lm_eval import LMEval, load_task, source_of

pytest.importorskip("lm_eval")
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from posbench.tasks.lm_eval_model import PosbenchLM

TRAIN_LEN, LONG = 32, 96
MODEL = [
    *("scheme=alibi", "size=l1h1d16", "train.steps=20", f"train.seq_len={TRAIN_LEN}", "train.batch_size=4"),
    *("train.val_interval=20", "train.val_batches=1", "data=files", "runtime.tracker=none"),
]
TASKS = {
    "my_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "my_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "my_answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    },
}
FILLER = "the sea was calm and the gulls cried over the old boat at dawn "


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Texts to train on, and the yaml files of three tasks with their data."""
    folder = tmp_path_factory.mktemp("harness")
    for name, words in (("train", "sea calm gulls"), ("validation", "old boat"), ("test", "dawn cried")):
        (folder / f"{name}.txt").write_text(f"{words} {FILLER}\n" * 40)
    tasks = folder / "my_tasks"
    tasks.mkdir()
    docs = [
        {
            "question": FILLER[: 9 + 5 * index],
            "choices": [FILLER[9 + 5 * index :][:2], "qz", "e ", " the"],
            "gold": 0,
            "text": FILLER * (1 + index % 3),
        }
        for index in range(8)
    ]
    (tasks / "docs.jsonl").write_text("\n".join(map(json.dumps, docs)))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tasks / "docs.jsonl")}}}
    for name, task in TASKS.items():
        (tasks / f"{name}.yaml").write_text(
            yaml.safe_dump({"task": name, **data, "test_split": "test", **task})
        )
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path, folder):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(folder / "datasets"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    allow(["my_tasks"])


@pytest.fixture
def where(folder):
    paths = ",".join(f"{name}:{folder / name}.txt" for name in ("train", "validation", "test"))
    return [
        *(f"+data.paths={{{paths}}}", "data.path=''"),
        f"runtime.results_dir={folder / 'results'}",
        f"runtime.cache_dir={folder / 'cache'}",
    ]


@pytest.fixture
def trained(posbench, folder, where) -> Path:
    status, _, err = posbench("train", *MODEL, *where)
    assert status == 0, err
    return next((folder / "results" / "models").iterdir())


def metrics(results: dict) -> dict[str, float]:
    """The metrics of all tasks from the results of lm-eval."""
    return {
        f"{task} {key.partition(',')[0]}": value
        for task, values in results["results"].items()
        for key, value in values.items()
        if isinstance(value, float) and "stderr" not in key
    }


def test_rows_are_what_the_harness_computes(posbench, trained, where, folder):
    """The same model and length, by posbench evaluate, by lm-eval with PosbenchLM, and as an exported folder."""
    tasks = folder / "my_tasks"
    for name in TASKS:
        status, out, err = posbench(
            *("evaluate", *MODEL, *where, "task=lm_eval", f"task.name={name}", "allow=[my_tasks]"),
            f"task.build.include_path={tasks}",
            f"evaluation.lengths=[{TRAIN_LEN},{LONG}]",
            "evaluation.length_multiples=[]",
        )
        assert status == 0, err
        assert f"{LONG} (3×)" in out
    rows = pd.concat(pd.read_parquet(path) for path in (folder / "results" / "cells").glob("*.parquet"))
    assert set(rows["status"]) == {"ok"}
    assert rows["doc_id"].nunique() == 3 * 8, "each document is a cluster of the intervals"

    def mean(name: str, metric: str, by: str = "", length: int = LONG) -> float:
        some = rows[(rows["variant"] == name) & (rows["eval_len"] == length)]
        of = some[some["metric"] == metric]
        return of["value_sum"].sum() / (some[some["metric"] == by]["value_sum"] if by else of["n"]).sum()

    found = {
        "my_choice acc": mean("my_choice", "acc"),
        "my_choice acc_norm": mean("my_choice", "acc_norm"),
        "my_text bits_per_byte": mean("my_text", "nll", "bytes") / 0.6931471805599453,
        "my_answer exact_match": mean("my_answer", "exact_answer"),
    }
    assert 0 < found["my_choice acc"] < 1, f"a number that a mistake would change, {found}"
    assert mean("my_text", "nll", length=TRAIN_LEN) != mean("my_text", "nll"), (
        "the length that was given counts"
    )

    source = load_trained(trained, ExtensionSettings(), None)
    corpus = open_corpus(source.settings.data, folder / "cache")
    native = NativeLM(
        source.model,
        TRAIN_LEN,
        KernelDispatcher("auto"),
        partial(autocast_context, source.model.embedding.weight.device, "float32"),
        4096,
    )
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    options = {"tasks": list(TASKS), "task_manager": manager, "bootstrap_iters": 0}
    ours = metrics(simple_evaluate(model=PosbenchLM(native, corpus, LONG), **options))
    assert ours == pytest.approx(found, abs=1e-6)

    exported = folder / "exported"
    if not exported.exists():
        assert posbench("export", trained, "--to", exported)[0] == 0
    # lm-eval's own bos is scored where it scores a whole text, behind another one that it puts in front.
    for tasks, add_bos in ((["my_choice", "my_answer"], True), (["my_text"], False)):
        given = {
            "pretrained": str(exported),
            "trust_remote_code": True,
            "max_length": LONG,
            "add_bos_token": add_bos,
        }
        theirs = metrics(
            simple_evaluate(
                model="hf", model_args=given, device="cpu", batch_size=1, **{**options, "tasks": tasks}
            )
        )
        assert theirs == pytest.approx(
            {key: value for key, value in found.items() if key in theirs}, abs=1e-5
        )
        assert theirs


def test_a_figure_of_its_rows(posbench, trained, where, folder, tmp_path):
    posbench(
        *("evaluate", *MODEL, *where, "task=lm_eval", "task.name=my_choice", "allow=[my_tasks]"),
        *(f"task.build.include_path={folder / 'my_tasks'}", f"evaluation.lengths=[{TRAIN_LEN},{LONG}]"),
        "evaluation.length_multiples=[]",
    )
    cells = (folder / "results" / "cells").glob("*.parquet")
    rows = pd.concat([pd.read_parquet(path) for path in cells], ignore_index=True)
    panel = {"task": "lm_eval", "metric": "acc", "variant": "my_choice", "title": "choice"}
    with house_style():
        assert draw(FigureData.of(rows, ["alibi"]), title="", panels=[panel])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "my_chioce"}, "did you mean 'my_choice'"),
        ({"name": "my_tasks/my_choice.yaml"}, "unknown task of lm-eval"),
        ({"name": "my_choice", "include_path": "other"}, "allow=[other]"),
    ],
)
def test_mistakes(folder, settings, message):
    given = {"include_path": str(folder / "my_tasks"), **settings}
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as error:
        LMEval(**given).harness_task(0)
    assert message in str(error.value)


def test_yaml_from_outside_runs_nothing_unless_allowed(tmp_path):
    """A yaml file of lm-eval names Python functions of its folder, which loading it would run."""
    tasks = tmp_path / "evil"
    tasks.mkdir()
    (tasks / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(x): return x\n")
    (tasks / "t.yaml").write_text(
        "task: t\ndataset_path: json\ntest_split: test\ndoc_to_text: !function code.f\n"
    )
    with pytest.raises(ConfigError, match="can run code"):
        LMEval("t", include_path=str(tasks)).harness_task(0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "metric_list: [{metric: someone/score, hf_evaluate: true}]",
            "downloads the code of its metric someone/score",
        ),
        ("unsafe_code: true", "runs code that models write"),
    ],
)
def test_code_of_the_hub_and_of_models_is_not_run(folder, tmp_path, line, message):
    """The harness runs code of a metric's repository without a question, and code of answers after one."""
    tasks = tmp_path / "my_tasks"
    tasks.mkdir()
    text = (folder / "my_tasks" / "my_answer.yaml").read_text()
    given = yaml.safe_load(text) | yaml.safe_load(line)
    (tasks / "t.yaml").write_text(yaml.safe_dump(given | {"task": "t"}))
    with pytest.raises(IncompatibleError, match=message):
        LMEval("t", include_path=str(tasks)).harness_task(0)


def test_too_short_a_length_is_one_line(posbench, trained, where, folder):
    status, _, err = posbench(
        *("evaluate", *MODEL, *where, "task=lm_eval", "task.name=my_answer", "allow=[my_tasks]"),
        *(
            f"task.build.include_path={folder / 'my_tasks'}",
            "evaluation.lengths=[4]",
            "evaluation.length_multiples=[]",
        ),
    )
    assert status == 2
    assert "this task generates 4; choose a longer length" in err


def test_a_task_with_other_files_is_another_cell(tmp_path):
    """Fault: rows measured before an edit of the yaml were reused."""
    tasks = tmp_path / "my_tasks"
    tasks.mkdir()
    (tasks / "docs.jsonl").write_text(json.dumps({"question": "a b", "choices": ["c", "d"]}))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tasks / "docs.jsonl")}}}
    versions = []
    for gold in (0, 1, 0):
        content = {
            "task": "edited",
            **data,
            "test_split": "test",
            **TASKS["my_choice"],
            "doc_to_target": gold,
        }
        (tasks / "edited.yaml").write_text(yaml.safe_dump(content))
        load_task.cache_clear()
        versions.append(LMEval("edited", include_path=str(tasks)).version)
    assert versions[0] != versions[1]
    assert versions[0] == versions[2]


def test_functions_of_a_task_are_the_same_in_every_process():
    """Fault: the version of a task with functions, such as hellaswag, held their addresses, and no cell was found again."""
    found = source_of(partial(json.loads, "1", cls=None))
    assert found == source_of(partial(json.loads, "1", cls=None))
    assert "def loads" in found[0]
    for value in (lambda document: document, json.JSONDecoder(), print, partial(print, "a")):
        assert " at 0x" not in json.dumps(source_of(value), default=source_of)
