"""posbench search on a small trained model: a yaml that evaluate reads, exact continuation, and one-line errors."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from posbench.evaluation.search import mean_loss
from posbench.lm.native import NativeLM

sys.path.insert(0, str(Path(__file__).parents[1] / "lm"))
from pretrained_models import saved

pytestmark = pytest.mark.slow

MODEL = ("size.n_layers=1", "size.d_model=16", "size.n_heads=2", "train.seq_len=16", "train.steps=20")
EXAMPLES = "task.build.num_examples=2"
SMALL = (
    "search.population=5",
    "search.parents=3",
    "search.mutations=2",
    "search.crossovers=2",
    "search.iterations=2",
)


@pytest.fixture
def search(script, tmp_path):
    """Trains the model, once per test; returns a call of posbench search."""
    assert script("train", *MODEL).code == 0

    def call(*overrides: str):
        examples = [] if any(one.startswith("task=") for one in overrides) else [EXAMPLES]
        return script("search", *MODEL, *SMALL, *examples, *overrides)

    return call


def files(tmp_path: Path, name: str = "longrope_searched") -> tuple[dict, dict]:
    folder = tmp_path / "results" / "search" / name
    extension = yaml.safe_load((folder / "extension" / f"{name}.yaml").read_text())
    return json.loads((folder / "candidates.json").read_text()), extension


def test_the_result_is_an_extension_with_the_lowest_loss(search, script, tmp_path):
    result = search()
    assert result.code == 0, result
    losses, extension = files(tmp_path)
    best = min(losses["candidates"], key=lambda one: one[1])
    assert extension["build"]["long_factor"] == best[0]
    assert extension["build"]["factor"] == 4.0
    # Fault: the search minimised the loss on the test segments that are evaluated.
    tested = json.loads((tmp_path / "results" / "search" / "longrope_searched" / "test.json").read_text())
    (loss,) = [loss for factors, loss in tested["candidates"] if factors == best[0]]
    assert loss != best[1]
    for name in ("pi", "ntk", "yarn", "searched"):
        assert f"{name} " in result.out
    evaluated = script(
        "evaluate",
        *MODEL,
        "extension=longrope_searched",
        EXAMPLES,
        "evaluation.length_multiples=[4]",
        f"hydra.searchpath=[file://{tmp_path}/results/search/longrope_searched]",
    )
    assert evaluated.code == 0, evaluated
    rows = pd.concat([pd.read_parquet(path) for path in (tmp_path / "results" / "cells").rglob("*.parquet")])
    nll = rows[(rows["metric"] == "nll") & (rows["extension"] == "longrope_searched")]
    assert nll["value_sum"].sum() / nll["n"].sum() == pytest.approx(loss, abs=1e-9)


def test_an_interrupted_search_continues_to_the_same_result(search, tmp_path, monkeypatch):
    assert search("search.name=whole").code == 0
    measured = []

    def recorded(model, cell):
        measured.append((model.corpus.evaluated_split, *cell.extension.build["long_factor"]))
        return mean_loss(model, cell)

    monkeypatch.setattr("posbench.evaluation.search.mean_loss", recorded)
    assert search("search.name=parts", "search.iterations=0").code == 0
    first, _ = files(tmp_path, "parts")
    assert search("search.name=parts").code == 0
    (whole, one), (parts, other) = files(tmp_path, "whole"), files(tmp_path, "parts")
    assert parts["candidates"] == whole["candidates"]
    assert parts["candidates"][: len(first["candidates"])] == first["candidates"]
    assert one["build"] == other["build"]
    # Fault: no test noticed that a continued search measured everything again.
    assert len(measured) == len(set(measured)) > len(parts["candidates"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("task=key_value",), ("key_value", "at its training length of 16 tokens", "below 90%")),
        (("task=passkey",), ("passkey at 16 tokens", "choose a length of")),
        (("task=attention",), ("not nll or logprob", "task=fixed_targets")),
        # Fault: num_keys was without an effect.
        (("task=key_value_uuid", "task.build.num_keys=[3]"), ("at 16 and 64 tokens", "task.build.num_keys=[]")),
        (("scheme=alibi",), ("LongRoPE needs a scheme with inv_freq", "ALiBi")),
        (("search.parents=6",), ("search.parents 6: give at most search.population, 5",)),
        (("search.length_multiple=1",), ("search.length_multiple 1.0", "above 1")),
        (("train.steps=21",), ("no trained model", "posbench train")),
        (("search.iterations=10000", "search.mutations=10000", "search.length_multiple=10000"), ("give fewer search",)),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(search, overrides, words):
    """A search without a model that can find needles would choose factors by noise."""
    result = search(*overrides)
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.code == 2, result
    assert len(lines) == 1, result.err
    for word in words:
        assert word in lines[0], lines[0]


def test_out_of_memory_is_one_line(search, monkeypatch):
    """Fault: a search that was out of memory ended in a traceback."""

    def read(self: NativeLM, ids: np.ndarray, *others: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(NativeLM, "read", read)
    result = search()
    assert (result.code, "Traceback" in result.err) == (2, False)
    assert "fixed_targets at 16 tokens: give a smaller search.length_multiple" in result.err


def test_losses_of_another_search_are_not_used(search):
    assert search().code == 0
    result = search("search.seed=1")
    assert result.code == 2
    assert (
        "candidates.json is of another model, corpus, task, length or seed: choose another search.name"
        in result.err
    )


def test_a_pretrained_model_is_judged_with_its_own_scaling(script, tmp_path, monkeypatch):
    """Faults: the check of a pretrained model ignored its RoPE scaling, and the search of one ended in a traceback."""
    rope = {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}
    folder = saved(tmp_path / "scaled", "llama", rope_parameters=rope)
    judged: list[str] = []
    check = "posbench.evaluation.search.check_capable"
    monkeypatch.setattr(check, lambda model, cell: judged.append(cell.extension.name))
    result = script("search", "lm=hugging_face", f"lm.name={folder}", "data=stdlib", *SMALL, EXAMPLES)
    assert judged == ["own_linear"], result
    assert result.code == 0, result
