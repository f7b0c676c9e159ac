"""Tables and figures of every task: baselines, gate, kernels, and weights by tokens."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_rows import ORDER, completed
from test_figure_kinds import CONFIGS, config, texts

from posbench.errors import IncompatibleError
from posbench.report.figures import (
    draw_figure,
    house_style,
    ranking,
    retrieval_by_position,
    retrieval_heat_map,
)
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.report_writer import write_report
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.report.tables.metrics import METRICS, get_metric, metrics_for_task
from posbench.report.tables.selection import one_kernel
from posbench.report.tables.summary import aggregate, baseline_values
from posbench.results import gate


@pytest.fixture(autouse=True)
def style():
    with house_style():
        yield


def task_rows(task: str, protocol: str, variant: str = "", **change) -> pd.DataFrame:
    """Three schemes at two lengths and five depths; `change` overrides columns."""
    generator = np.random.default_rng(5)
    lines = []
    for scheme, accuracy in (("rope", 0.97), ("alibi", 0.95), ("nope", 0.3)):
        for length in (64, 256):
            for index in range(12):
                for depth in (0.0, 0.25, 0.5, 0.75, 1.0):
                    hit = float(generator.random() < (accuracy if length == 64 else accuracy * depth))
                    rank = 1.0 if hit else float(generator.integers(2, 9))
                    values = {"exact_match": hit, "logprob": -0.1 if hit else -4.0, "rank": rank}
                    values |= {"reciprocal_rank": 1 / rank, "chance": 1e-3}
                    at = {"scheme": scheme, "model_id": scheme, "eval_len": length, "doc_id": f"c{index}"}
                    lines += [
                        {**at, "depth": depth, "metric": name, "value_sum": value}
                        for name, value in values.items()
                    ]
    accuracyd = {
        "cell_id": "c",
        "extension": "none",
        "model_size": "tiny",
        "n_params": 400_000,
        "train_len": 64,
    }
    accuracyd |= {
        "train_tokens": 900_000,
        "train_seed": 0,
        "corpus": "sources",
        "task": task,
        "protocol": protocol,
    }
    accuracyd |= {"variant": variant, "eval_seed": 0, "example": 0, "n": 1, "unit": "", "status": "ok"}
    rows = pd.DataFrame(lines).assign(**{**accuracyd, "kernel": "sdpa", "dtype": "float32", **change})
    return gate.apply_gate(completed(rows))


@pytest.fixture(scope="module")
def passkeys():
    return task_rows("passkey", "passkey")


def test_metrics_by_task():
    assert get_metric("exact_match").label == "retrieval accuracy"
    assert get_metric("exact_match", "passkey").label == "retrieval accuracy"
    assert get_metric("exact_match", "algorithmic").label == "accuracy of whole answers"
    mine = get_metric("exact_match", "my_task")
    assert (mine.tasks, mine.label, mine.baselines) == (
        ("my_task",),
        "exact match",
        ("chance", "random_in_context"),
    )
    assert [each.name for each in metrics_for_task("repetition", {"token_accuracy", "nll"})] == [
        "perplexity",
        "token_accuracy",
    ]
    assert "chance" not in [each.name for each in metrics_for_task("passkey", {"exact_match", "chance"})]


def test_tables_of_passkey_retrieval(passkeys):
    found = {table.name: to_markdown(table) for table in build_tables(passkeys, ORDER)}
    metrics = ("exact_match", "logprob", "rank", "reciprocal_rank")
    kinds = [
        f"exact_match-{name}" for name in ("differences", "ranking", "effective_length", "serial_position")
    ]
    assert set(found) == {"models", *(f"passkey-passkey-{name}" for name in (*metrics, *kinds))}
    accuracy = found["passkey-passkey-exact_match"]
    assert "| (chance) | 0.0010 | 0.0010 |" in accuracy
    assert "| (gate) | 0.90 |  |" in accuracy
    assert "not learned" in accuracy
    assert "Left out at longer contexts: nope." in accuracy
    assert "(random value of the context)" not in accuracy
    assert "accuracy of passkey-passkey at the training length" in found["models"]
    assert "| (gate) |  |  |  | 0.90 |" in found["models"]


def test_mean_ranks_are_means(passkeys):
    at_64 = passkeys[(passkeys["scheme"] == "rope") & (passkeys["eval_len"] == 64)]
    for name in ("rank", "reciprocal_rank"):
        wanted = at_64[at_64["metric"] == name]["value_sum"].mean()
        numbers = aggregate(at_64, get_metric(name, "passkey"))
        assert numbers["estimate"].item() == pytest.approx(wanted)


def test_passkey_heat_map(passkeys, tmp_path):
    paths = draw_figure(config("passkey_heat_map"), passkeys, tmp_path, ORDER)
    shown = pd.read_csv(paths[2])
    assert set(shown["eval_len"]) == {64, 256}
    assert shown["chance"].eq(1e-3).all()
    assert shown["low"].notna().any()
    figure, _ = retrieval_heat_map.draw(FigureData.of(passkeys, ORDER), task="passkey")
    assert "Lines on the colour scale: chance, gate." in texts(figure)
    assert "passkey" in [axes.get_xlabel() for axes in figure.axes]
    # Fault: the rows had no axis label, and the caption did not say that a cell is a mean over a fifth of the positions.
    assert figure.axes[0].get_ylabel() == "context length\n(tokens)"
    assert "Each cell is the mean over one of 5 equal parts of the positions" in texts(figure)
    figure, _ = retrieval_by_position.draw(FigureData.of(passkeys, ORDER), task="passkey")
    assert "Each point is the mean over one of 8 equal parts of the positions" in texts(figure)


def test_variants_are_compared_in_rows_of_panels(tmp_path):
    rows = pd.concat([task_rows("key_value", "json_uuid", variant) for variant in ("", "query_aware")])
    settings = {key: value for key, value in config("query_aware").items() if key not in ("name", "draw")}
    figure, shown = retrieval_by_position.draw(FigureData.of(rows, ORDER), **settings)
    assert len(figure.axes) == 4
    names = [axes.get_ylabel().split("\n")[0] for axes in figure.axes[::2]]
    assert names == ["question after the context", "question before and after the context"]
    assert "Variants: question after the context, question before and after the context." in texts(figure)
    assert set(shown["variant"]) == {"", "query_aware"}
    # The default is the plain variant.
    _, plain = retrieval_by_position.draw(FigureData.of(rows, ORDER))
    assert set(plain["variant"]) == {""}


FACTS = (
    "training seed",
    "95% confidence over",
    "Attention kernel: sdpa in float32",
    "Models: tiny",
)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_captions_name_protocol_counts_seeds_interval_and_kernel(rows, path, monkeypatch):
    """For all figures that have synthetic rows."""
    settings = yaml.safe_load(path.read_text())
    drawn = []
    monkeypatch.setattr(
        "posbench.report.figures.save", lambda figure, shown, stem: drawn.append(figure) or []
    )
    try:
        draw_figure(settings, rows, "nowhere", ORDER)
    except MissingRowsError:
        pytest.skip("needs rows of other tasks")
    caption = texts(drawn[0])
    for fact in FACTS:
        assert fact in caption
    assert re.search(r"\d [a-z ]+ in [\d,to ]+ (documents|contexts)", caption)
    if "retrieval" in path.stem or settings.get("retrieval_metric"):
        assert "Chance: 0.06; random value of the context: " in caption
        assert re.search(r"Gate: .* accuracy (of 0\.90 at|at) the training length", caption)


def test_ranking_shows_baselines_and_the_gate(rows):
    figure, _ = ranking.draw(FigureData.of(rows, ORDER))
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == ["chance", "random value of the context", "gate (training length)"]
    # Fault: the caption gave the range over lengths of a baseline whose line is at the mean.
    assert "Vertical lines: chance, random value of the context (mean of all lengths)." in texts(figure)


def test_missing_baselines_are_left_out(rows):
    loss = rows[rows["task"] == "perplexity"]
    assert baseline_values(loss).empty
    assert list(baseline_values(rows[rows["metric"] != "random_in_context"])) == ["chance"]


def test_gate_needs_rows_at_the_training_length(passkeys):
    far = passkeys[passkeys["eval_len"] == 256].assign(status="ok")
    text = next(
        to_markdown(table) for table in build_tables(far) if table.name == "passkey-passkey-exact_match"
    )
    assert "Gate: not applied, since no model was evaluated at its training length." in text


def mixed(rows: pd.DataFrame, kernels: dict[int, str]) -> pd.DataFrame:
    """The rows of rope with a kernel by length."""
    rope = (rows["scheme"] == "rope") & (rows["extension"] == "none")
    return rows.assign(kernel=rows["kernel"].mask(rope, rows["eval_len"].map(kernels).fillna("sdpa")))


def test_kernels_may_be_added_at_longer_contexts_but_not_change(rows):
    part = rows[rows["protocol"] == "fixed_targets"]
    one_kernel(mixed(part, {256: "dense+sdpa", 512: "dense+sdpa"}))
    with pytest.raises(
        IncompatibleError, match="rope was computed with kernels dense, sdpa: evaluate it with one"
    ):
        one_kernel(mixed(part, {256: "dense"}))
    seeds = pd.concat([part, mixed(part, {256: "dense+sdpa"}).assign(train_seed=1)])
    with pytest.raises(IncompatibleError, match="kernels dense\\+sdpa, sdpa at 256 tokens") as error:
        one_kernel(seeds)
    assert "\n" not in str(error.value)


def test_tables_mix_kernels_only_if_a_figure_may(rows, tmp_path):
    part = mixed(rows[rows["protocol"] == "fixed_targets"], {256: "dense"})
    with pytest.raises(IncompatibleError, match="set mix_kernels: true"):
        list(build_tables(part))
    with pytest.raises(IncompatibleError, match="set mix_kernels: true"):
        write_report(part, [config("fixed_targets")], tmp_path / "refused", ORDER)
    write_report(part, [config("fixed_targets", mix_kernels=True)], tmp_path, ORDER)
    name = "perplexity-fixed_targets-perplexity.md"
    assert (
        "Attention kernels: dense, sdpa (rope), sdpa (the rest)" in (tmp_path / "tables" / name).read_text()
    )


def test_captions_name_kernels_by_scheme(rows):
    part = rows[rows["protocol"] == "fixed_targets"]
    dense = part.assign(kernel=part["kernel"].mask(part["scheme"].isin(["t5", "nope"]), "dense"))
    text = next(to_markdown(table) for table in build_tables(dense) if table.name.endswith("-perplexity"))
    assert "Attention kernels: dense (nope, t5), sdpa (the rest), in float32." in text


def test_all_tables_weight_documents_by_tokens(rows):
    """One document of 16,000 tokens and fifteen of 16: all tables are ratios of sums."""
    part = rows[(rows["protocol"] == "fixed_targets") & (rows["extension"] == "none")]
    part = part[part["scheme"].isin(["rope", "alibi"])]
    long = part["doc_id"] == "doc000"
    part = part.assign(
        n=part["n"].mask(long, part["n"] * 1000),
        value_sum=part["value_sum"].mask(long, part["value_sum"] * 1000),
    )
    found = {table.name.rpartition("-")[2]: table.numbers for table in build_tables(part, ORDER)}
    sums = part.groupby(["scheme", "eval_len", "metric"])[["value_sum", "n"]].sum().unstack()
    nats, tokens, size = sums["value_sum"]["nll"], sums["n"]["nll"], sums["value_sum"]["bytes"]
    for name, ratio in (("perplexity", np.exp(nats / tokens)), ("bits_per_byte", nats / size / math.log(2))):
        numbers = found[name].set_index(["scheme", "eval_len"])["estimate"]
        assert numbers.sort_index().tolist() == pytest.approx(ratio.sort_index().tolist())
        documents = part[part["metric"] == "nll"]
        mean_of_means = (documents["value_sum"] / documents["n"]).groupby(documents["eval_len"]).mean()
        assert (
            abs(mean_of_means - np.log(found["perplexity"].groupby("eval_len")["estimate"].mean())).min()
            > 1e-3
        )
    differences = found["differences"].set_index("eval_len")["a_minus_b"]
    bits = nats / size / math.log(2)
    assert differences.tolist() == pytest.approx((bits["rope"] - bits["alibi"]).tolist())
    assert METRICS["perplexity"].exponential


def test_the_caption_of_generated_answers_has_their_criterion():
    """Fault: the caption of generated answers described the criterion of scored answers."""
    generated = task_rows("key_value", "json_uuid").replace({"metric": {"exact_match": "substring_match"}})
    tables = build_tables(generated, ORDER)
    assert any("the generated text contains" in table.caption for table in tables)
    assert not any("first choice" in table.caption for table in tables)
