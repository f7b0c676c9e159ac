"""The benchmark: alternating pairs, intervals with their coverage, and peers that compute the same."""

import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from posbench.benchmark import evaluation, gpu, memory, paired, steps
from posbench.benchmark.line import Line
from posbench.benchmark.models import (
    BenchmarkShape,
    with_scheme,
)
from posbench.benchmark.paired import LEAST_PAIRS, Ratio, Work, of_pairs, time_paired, time_paired_processes
from posbench.benchmark.steps import components_of, goal_of
from posbench.commands import benchmark
from posbench.config import hydra_app
from posbench.errors import ConfigError

SHAPE = BenchmarkShape(n_layers=2, d_model=64, n_heads=2, seq_len=16, batch_size=2, vocab_size=48)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the command does; small tensors on many threads are slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_pairs_alternate_and_each_function_is_first_equally_often() -> None:
    calls: list[str] = []
    ratio = time_paired(lambda: calls.append("a"), lambda: calls.append("b"), seconds=0)
    assert ratio.pairs == LEAST_PAIRS
    assert "".join(calls[4:12]) == "abbaabba"


def test_the_ratio_is_paired() -> None:
    """A machine that becomes ten times slower in the middle changes both times and no ratio."""
    theirs_P = np.repeat([1.0, 10.0], 20)
    ratio = of_pairs(np.stack([1.2 * theirs_P, theirs_P], 1))
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.2, 1.2, 1.2))


def test_the_interval_covers_the_true_median() -> None:
    """Fault: the range of all medians that were drawn, which always covers it, passed unnoticed."""
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(100):
        pairs_P2 = rng.lognormal(0.0, 0.2, (25, 2))
        ratio = of_pairs(pairs_P2)
        covered += ratio.low <= 1.0 <= ratio.high
        widths.append(np.log(ratio.high / ratio.low))
    assert covered >= 88
    # The error of a median of 25 logarithms, each the difference of two of 0.2, is sqrt(pi / 2) that of their mean.
    error = np.sqrt(np.pi / 2) * np.sqrt(2) * 0.2 / np.sqrt(25)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.15)


@pytest.mark.parametrize(("low", "passed"), [(0.5, True), (1.09, True), (1.11, False)])
def test_a_line_fails_where_the_whole_interval_misses(low: float, passed: bool) -> None:
    assert Line("step", "peer", 1.0, Ratio(1.5, low, 2.0, 15.0, 10.0, 9)).passed is passed


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pair of small shapes a line."""
    monkeypatch.setattr(paired, "LEAST_PAIRS", 1)
    monkeypatch.setattr(steps, "SCHEMES", SHAPE)
    monkeypatch.setattr(steps, "LONG", replace(SHAPE, seq_len=32))
    monkeypatch.setattr(steps, "SHAPES", (SHAPE,))
    for name in ("RETRIEVAL", "PREFIX"):
        monkeypatch.setattr(evaluation, name, SHAPE)


@pytest.mark.slow
def test_training_step_compares_every_peer_at_every_shape(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process: a process for each model imports torch and transformers eight times."""

    def in_this_process(ours: Callable[[], Work], theirs: Callable[[], Work], seconds: float) -> Ratio:
        return time_paired(pickle.loads(pickle.dumps(ours))(), pickle.loads(pickle.dumps(theirs))(), seconds)

    monkeypatch.setattr(steps, "time_paired_processes", in_this_process)
    monkeypatch.setattr(steps, "keep_freed_memory", lambda: None)
    found = list(steps.peers(seconds=0))
    assert [line.peer.split()[0] for line in found] == ["torch", "transformers", "x-transformers", "torch"]
    assert "nanoGPT" in found[0].peer
    assert all(line.ratio and line.ratio.median > 0 for line in found)


def test_the_goal_of_a_scheme_follows_from_its_components() -> None:
    """Fault: the two softmaxes of differential attention counted as trained positions, with a goal of 1.15."""
    expected = {
        "cope": ({"whole rows"}, 1.7),
        "deberta": ({"content by pair"}, 1.35),
        "shaw": ({"content by pair", "values by pair"}, 1.35),
        "linear_attention": ({"no pairs"}, 1.35),
        "fox": ({"separable"}, 1.15),
        "softmax_one": ({"log-sum-exp"}, 1.15),
        "alibi": ({"distances"}, 1.05),
        "window": ({"masks"}, 1.05),
        "nope": (set(), 1.05),
        "pope": ({"wide queries"}, 1.35),
        "floater": ({"trained positions"}, 1.15),
        "differential": ({"several softmaxes"}, 1.35),
    }
    settings = hydra_app.load_group("scheme")
    for name, (components, goal) in expected.items():
        found = components_of(with_scheme(settings[name]["build"]), SHAPE)
        assert (found, goal_of(found)) == (components, goal), name


def test_scheme_lines_are_selected_by_name(quick: None) -> None:
    (line,) = steps.schemes(0, ["window"])
    assert (line.goal, line.what.split(":")[0]) == (1.05, "training step, window (masks)")
    assert [line.goal for line in steps.schemes(0, ["alibi"])] == [1.05, 1.6]
    with pytest.raises(ConfigError, match="did you mean 'alibi'"):
        next(steps.schemes(0, ["albi"]))


@pytest.mark.parametrize("flags", ["flags: avx2", "flags: avx2 amx_bf16"])
def test_bfloat16_is_timed_where_the_cpu_has_it(
    quick: None, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    (line,) = steps.bfloat16(0)
    assert (line.ratio is None) == (line.result.startswith("skipped: ")) == ("bf16" not in flags)


def test_evaluation_lines_compare_the_same_work(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "CONTEXTS", ((16, 0.5),))
    monkeypatch.setattr(evaluation, "QUESTIONS", 2)
    monkeypatch.setattr(evaluation, "LENGTHS", (8, 16, 32))
    shape = BenchmarkShape(n_layers=1, d_model=32, n_heads=2, seq_len=16, batch_size=1)
    lm = evaluation.as_lm(evaluation.ours(shape)[0], shape)
    monkeypatch.setattr(evaluation, "as_lm", lambda model, shape: lm)
    (line,) = evaluation.retrieval(0)
    assert line.ratio
    read: list[int] = []
    score = lm.loglikelihood
    monkeypatch.setattr(
        lm, "loglikelihood", lambda asked: (read.append(sum(p.length for p in asked)), score(asked))[1]
    )
    once, equal = evaluation.prefix(0)
    assert once.ratio
    assert equal.ratio
    assert set(read) == {32, 8 + 16 + 32, 3 * 32}


def test_every_extension_has_a_line(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "EXTENDED", SHAPE)
    monkeypatch.setattr(evaluation, "EXTENDED_LENGTH", 64)
    monkeypatch.setattr(evaluation, "EXTENDED_PAIRS", 1)
    found = {line.what.split()[2]: line for line in evaluation.extended(0)}
    assert set(found) == {name for name, one in hydra_app.load_group("extension").items() if one["build"]}
    assert (found["pi"].goal, found["window"].goal, found["rerope"].goal) == (1.05, 1.3, 2.6)


def test_the_peer_does_a_part_of_its_work() -> None:
    ratio = time_paired(lambda: None, lambda: None, seconds=0, theirs_parts=1000)
    assert ratio.median < 0.1


def test_the_settings_are_those_of_the_demo() -> None:
    script = evaluation.demo()
    assert script.train.steps // evaluation.SHARE == 37
    assert len(script.grid.extension) == 7
    assert script.evaluate["fixed_targets"].settings == {"num_examples": 8}
    assert script.evaluate["key_value"].settings == {"num_contexts": 4}
    assert "prefix" not in script.evaluate  # excluded for extended models


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    """1024 rows of 50257 float32 take 206 MB; chunks of 64 MiB with their exponentials take more than 100 MB."""
    if not memory.STATUS.exists():
        pytest.skip(memory.NOT_LINUX)
    full, chunked = (
        memory.peak_growth(["logits", "1024", "full"]),
        memory.peak_growth(["logits", "1024", "chunked"]),
    )
    assert 206e6 < full < 900e6
    assert 60e6 < chunked < full


def test_memory_lines_take_one_scheme_of_each_structure_but_whole_rows() -> None:
    found = memory.structures()
    assert len(set(found.values())) == len(found) >= 6
    assert ("distances",) in found.values()
    assert () in found.values()
    assert not any("whole rows" in components for components in found.values())
    line = Line("memory", "half", 2.05, Ratio(2.06, 2.06, 2.06, 206.0, 100.0, 1), "MB", 1.0)
    assert not line.passed


def test_without_a_gpu_its_lines_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = list(gpu.lines(0))
    assert {line.result for line in found} == {"skipped: no GPU"}
    assert all(line.passed for line in found)
    assert [line.goal for line in found if "flex:" in line.what] == list(gpu.SETTINGS["schemes"].values())
    assert benchmark.main(["--only", "gpu"]) == 0
    assert capsys.readouterr().out.count("skipped: no GPU") == len(found)


def test_with_a_gpu_its_lines_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seconds: float) -> Ratio:
        raise RuntimeError("no\nkernel")

    good = Ratio(5e5, 4.9e5, 5.1e5, 5e5, float("nan"), 9)
    some = [
        gpu.PlannedLine("rate", "least", 475e3, lambda seconds: good, least=True, unit="tokens/s"),
        gpu.PlannedLine("step", "peer", 1.0, broken),
    ]
    monkeypatch.setattr(gpu, "planned", lambda: iter(some))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert benchmark.main(["--only", "gpu", "--results", str(tmp_path)]) == 1
    frame = pd.read_csv(tmp_path / "gpu.csv")
    assert frame["result"].tolist() == ["ok", "FAILED: RuntimeError: no"]
    assert (tmp_path / "gpu.md").read_text().startswith(f"torch {torch.__version__}, Python")
    monkeypatch.setattr(gpu, "MINUTES", -1)
    assert {line.result for line in gpu.lines(0)} == {"skipped: no time left after -1 minutes"}


@pytest.mark.parametrize(("high", "passed"), [(476e3, True), (440e3, True), (400e3, False)])
def test_a_rate_has_a_minimum(high: float, passed: bool) -> None:
    rate = Ratio(4e5, 3e5, high, 4e5, float("nan"), 9)
    assert Line("step", "least", 475e3, rate, "tokens/s", least=True).passed is passed


def test_the_lines_of_a_gpu_run_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU with small shapes, uncompiled; without FlexAttention, which has no backward pass there."""
    tiny = BenchmarkShape(n_layers=1, d_model=32, n_heads=2, seq_len=16, batch_size=2, vocab_size=400)
    for name, value in {"DEVICE": "cpu", "BASE": tiny, "PART": tiny, "RETRIEVAL": tiny}.items():
        monkeypatch.setattr(gpu, name, value)
    for name, value in {"READ": 96, "CONTEXT": 40, "QUESTIONS": 2}.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "LEAST_PAIRS", 1)
    monkeypatch.setattr(paired, "LEAST_PAIRS", 1)
    monkeypatch.setattr(torch, "compile", lambda run, **_: run)
    gpu.our_step.cache_clear()
    assert gpu.tokens_a_second(0).median > 0
    assert gpu.beside_plain(tiny, 0).median > 0
    assert gpu.extended("rerope", 0).median > 0
    assert gpu.retrieval(0).median > 0
    gpu.our_step.cache_clear()


def _count() -> paired.Work:
    calls = [0]

    def work() -> None:
        calls[0] += 1
        time.sleep(0.002 if calls[0] > 1 else 0.2)

    return work


def test_processes_are_timed_by_their_own_clock_after_the_first_calls() -> None:
    ratio = time_paired_processes(_count, _count, seconds=0, warm=1)
    assert ratio.pairs == LEAST_PAIRS
    assert 2 <= ratio.ours < 100


def _fail() -> paired.Work:
    raise ValueError("cannot be built")


def test_a_timed_process_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(RuntimeError, match="has ended"):
        time_paired_processes(_fail, _count, seconds=0)
