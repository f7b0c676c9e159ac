"""The benchmark: fair pairs, honest intervals, and peers that compute what they are said to."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from posbench.benchmark import lines, paired
from posbench.benchmark.lines import Line, step_of
from posbench.benchmark.models import Maker, Plain, Shape, gpt2, ours, plain, x_transformers
from posbench.benchmark.paired import LEAST_PAIRS, Ratio, compare, of_pairs
from posbench.model.gpt import GPT, Size
from posbench.schemes.rope import RoPE

SHAPE = Shape(layers=2, width=64, heads=2, length=16, batch=2, vocabulary=48)
SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the script has it; small tensors on many threads are slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_pairs_alternate_and_each_goes_first_as_often() -> None:
    calls: list[str] = []
    ratio = compare(lambda: calls.append("a"), lambda: calls.append("b"), seconds=0)
    assert ratio.pairs == LEAST_PAIRS
    assert "".join(calls[4:12]) == "abbaabba"


def test_the_ratio_is_paired() -> None:
    """A machine that slows down ten-fold in the middle moves both times and no ratio."""
    theirs_P = np.repeat([1.0, 10.0], 20)
    ratio = of_pairs(np.stack([1.2 * theirs_P, theirs_P], 1))
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.2, 1.2, 1.2))


def test_the_interval_covers_the_true_median() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        pairs_P2 = rng.lognormal(0.0, 0.2, (25, 2))
        ratio = of_pairs(pairs_P2)
        covered += ratio.low <= 1.0 <= ratio.high
    assert covered >= 88


@pytest.mark.parametrize(("low", "passed"), [(0.5, True), (1.09, True), (1.11, False)])
def test_a_line_fails_where_the_whole_interval_misses(low: float, passed: bool) -> None:
    assert Line("step", "peer", 1.0, Ratio(1.5, low, 2.0, 15.0, 10.0, 9)).passed is passed


@pytest.mark.parametrize("make", [ours, gpt2, x_transformers, plain])
def test_every_model_has_the_shape_and_learns(make: Maker) -> None:
    module, model = make(SHAPE)
    ids = torch.zeros(SHAPE.batch, SHAPE.length, dtype=torch.long)
    assert model(ids).shape == (SHAPE.batch, SHAPE.length, SHAPE.vocabulary)
    blocks = SHAPE.layers * 12 * SHAPE.width**2
    assert sum(parameter.numel() for parameter in module.parameters()) == pytest.approx(blocks, rel=0.15)
    step_of(make, SHAPE)()


def test_the_plain_peer_is_our_model() -> None:
    """The same weights give the same logits, so that the line times nothing but the frame."""
    size = Size(SHAPE.layers, SHAPE.width, SHAPE.heads)
    model = GPT(size, SHAPE.vocabulary, RoPE(size.shape(SHAPE.length), interleaved=False), seed=0)
    peer = Plain(SHAPE)
    names = {"attention_norm": "norm", "final_norm": "norm"}
    peer.load_state_dict(
        {
            ".".join(names.get(part, part) for part in name.split(".")): weight
            for name, weight in model.state_dict().items()
        }
    )
    ids = torch.randint(SHAPE.vocabulary, (SHAPE.batch, SHAPE.length))
    torch.testing.assert_close(peer(ids), model.head(model(ids)[0]))


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("slow", "status"), [(1.0, 0), (1.3, 1)])
def test_the_script_writes_its_table_and_exits_by_it(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float, status: int
) -> None:
    def one(seconds: float) -> Iterator[Line]:
        yield Line("step", "peer 1.0", 1.0, Ratio(slow, slow, slow, 10 * slow, 10.0, 9))

    monkeypatch.setattr(script, "LINES", (one,))
    assert script.main(["--results", str(tmp_path / "new")]) == status
    frame = pd.read_csv(tmp_path / "new" / "cpu.csv")
    assert frame["result"].tolist() == ["FAILED" if status else "ok"]
    assert "peer 1.0" in (tmp_path / "new" / "cpu.md").read_text()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["cpu.csv", "cpu.md"]


def test_training_step_compares_every_peer_at_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SHAPES", (SHAPE,))
    monkeypatch.setattr(paired, "LEAST_PAIRS", 1)
    found = list(lines.training_step(seconds=0))
    assert [line.peer.split()[0] for line in found] == ["transformers", "x-transformers", "torch"]
    assert all(line.ratio.median > 0 for line in found)
