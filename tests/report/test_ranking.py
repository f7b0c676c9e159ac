"""Rankings: ranges of ranks and groups by hand, on rows, and in the figure."""

import numpy as np
import pandas as pd
import pytest
from synthetic_rows import synthetic_rows
from test_figure_kinds import ORDER, config, texts

from posbench.report.figures import draw_figure, house_style
from posbench.report.figures.figure_data import FigureData
from posbench.report.figures.ranking import draw, ranked
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.report.tables.metrics import METRICS, get_metric
from posbench.report.tables.pairwise_tests import EQUAL, NOT_SIGNIFICANT, pairwise_tests
from posbench.report.tables.ranking import not_told_apart, ranking
from posbench.results.statistics import benjamini_hochberg

BITS = METRICS["bits_per_byte"]


def test_benjamini_hochberg_by_hand():
    # Sorted: .005 * 4/1, .01 * 4/2, .03 * 4/3, .04 * 4/4, then the running minimum from the largest.
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([0.9, 0.8]) == pytest.approx([0.9, 0.9])
    assert benjamini_hochberg([]) == []


def test_many_pairs_with_small_p_are_told_apart():
    """Of 80 schemes with three seeds, whose p are seldom below .001, Holm's correction told none apart."""
    assert max(benjamini_hochberg([0.002] * 3000)) == pytest.approx(0.002)


def test_ranks_and_groups_by_hand():
    """a and b are not told apart, nor b and c, but a and c are; d is worst."""
    numbers = pd.DataFrame({"scheme": list("dcba"), "extension": "none", "eval_len": 64})
    numbers["estimate"] = [4.0, 3.0, 2.0, 1.0]
    p_values = {"ab": 0.5, "bc": 0.5, "ac": 0.01, "ad": 0.01, "bd": 0.01, "cd": 0.01}
    found = pd.DataFrame([{"a": pair[0], "b": pair[1], "p_value": p} for pair, p in p_values.items()])
    found["p_adjusted"] = benjamini_hochberg(found["p_value"].tolist())
    ranked = ranking(numbers, found.assign(eval_len=64), get_metric("bits_per_byte"), 64)
    columns = ["label", "first_rank", "last_rank", "group"]
    assert ranked[columns].to_numpy().tolist() == [
        ["a", 1, 2, 1],
        ["b", 1, 3, 1],
        ["c", 2, 3, 2],
        ["d", 4, 4, 3],
    ]
    # Of scores, higher is better.
    scores = numbers.assign(estimate=[0.1, 0.2, 0.3, 0.4])
    again = ranking(scores, found.assign(eval_len=64), get_metric("exact_match"), 64)
    assert again[columns].to_numpy().tolist() == ranked[columns].to_numpy().tolist()


def test_the_table_and_the_figure_rank_alike(rows, tmp_path):
    tables = {table.name: table for table in build_tables(rows, ORDER)}
    table = tables["perplexity-fixed_targets-bits_per_byte-ranking"]
    numbers = table.numbers
    assert numbers["estimate"].is_monotonic_increasing
    assert numbers["group"].iat[0] == numbers["first_rank"].iat[0] == 1
    assert "learned" not in set(numbers["scheme"])  # undefined at the longest context
    assert "(p < 0.05 after Benjamini and Hochberg's correction" in to_markdown(table)
    # Fault: "to the rank with only significantly worse ones below" had to be read twice.
    assert (
        "the second is the number of series, this one included, that are not significantly worse"
        in table.caption
    )
    better, worse = numbers["first_rank"] - 1, len(numbers) - numbers["last_rank"]
    assert better.sum() == worse.sum() > 0  # each pair that differs significantly counts once for both
    with house_style():
        figure, shown = draw(FigureData.of(rows, ORDER))
    groups = shown.dropna(subset="group")
    assert set(groups["eval_len"]) == {1024}
    assert "Dotted lines: groups by the bits per byte at 1024 tokens" in texts(figure)
    assert len(draw_figure(config("ranking"), rows, tmp_path, ORDER)) == 3


def test_seeds_left_out_are_named():
    """The ranking printed the mean over the seeds that passed the gate like one over all seeds."""
    rows = synthetic_rows(seeds=4, documents=8, contexts=8, schemes=("rope", "alibi"))
    lost = (rows["scheme"] == "alibi") & (rows["train_seed"] == 3) & (rows["eval_len"] == 256)
    rows.loc[lost & (rows["task"] == "key_value"), "status"] = "not_learned"
    tables = {table.name: table for table in build_tables(rows, ORDER)}
    text = to_markdown(tables["key_value-synthetic_records-exact_match-ranking"])
    assert "1 of 4 seeds has not learned the task and is left out." in text


def test_seeds_that_count_at_the_training_length_alone_are_named():
    """Fault: if one of three seeds was below the gate, the footnote called the whole series "not learned"."""
    rows = synthetic_rows(seeds=3, documents=8, contexts=8, schemes=("rope", "alibi"))
    failed = (rows["scheme"] == "alibi") & (rows["train_seed"] == 2) & (rows["task"] == "key_value")
    rows.loc[failed, "status"] = "not_learned"
    table = next(
        one for one in build_tables(rows, ORDER) if one.name == "key_value-synthetic_records-exact_match"
    )
    text = to_markdown(table)
    assert "1 of 3 seeds has not learned the task; it counts here and is left out at longer contexts." in text
    assert "Not learned: accuracy at the training length" not in text
    assert "Best of the series without a footnote in bold." in text


def test_groups_end_between_ranked_series(rows_of_three_seeds):
    """Fault: a series without a test had a border of a group above and below it, also in the middle of a group."""
    alibi = rows_of_three_seeds.query("scheme == 'alibi'")
    worse = [
        alibi.assign(
            scheme=name, value_sum=alibi["value_sum"].mask(alibi["metric"] == "nll", by * alibi["value_sum"])
        )
        for name, by in (("one", 1.1), ("two", 1.2), ("three", 1.3))
    ]
    rows = pd.concat([rows_of_three_seeds, *worse])
    few = rows["scheme"].isin(["one", "two"]) & (rows["train_seed"] > 0)
    with house_style():
        figure, _ = draw(FigureData.of(rows[~few], ORDER))
    borders = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert borders == [2.5], "between three, in row 1, and alibi, in row 4"
    assert "Not ranked: " in texts(figure)
    assert "one (no test)" in texts(figure)


def test_the_figure_draws_intervals_over_seeds_alone(rows, rows_of_three_seeds):
    with house_style():
        assert "intervals, in the csv alone: 95% confidence over documents" in texts(
            draw(FigureData.of(rows, ORDER))[0]
        )
        figure, _ = draw(FigureData.of(rows_of_three_seeds, ORDER))
    # Fault: the caption did not say what the lines at effective lengths are.
    words = "lines at the longest context and of effective lengths: 95% confidence over 3 seeds"
    assert words in texts(figure)


def test_each_panel_has_lines_at_its_own_longest_length(rows):
    """Fault: the caption explained lines for retrieval, but lines were drawn at 16 times the training length only."""
    rows = synthetic_rows(seeds=3, documents=8, contexts=8, schemes=("rope", "alibi"))
    with house_style():
        figure, _ = draw(FigureData.of(rows, ORDER))
    for panel in figure.axes[:2]:
        (lines,) = [one for one in panel.collections if set(np.ravel(one.get_linewidths())) == {1.6}]
        assert len(lines.get_paths()) == 2


def test_missing_dots_have_every_reason(rows):
    """Fault: the caption gave "undefined, or not learned" as the reason of every missing dot."""
    lost = (rows["scheme"] == "alibi") & (rows["eval_len"] == 1024) & rows["value_sum"].notna()
    rows = rows.assign(
        status=rows["status"].mask(lost, "out_of_memory"), value_sum=rows["value_sum"].mask(lost)
    )
    undefined = (rows["scheme"] == "rope") & (rows["eval_len"] == 256) & (rows["task"] == "key_value")
    rows = rows.assign(
        status=rows["status"].mask(undefined, "undefined"), value_sum=rows["value_sum"].mask(undefined)
    )
    with house_style():
        caption = texts(draw(FigureData.of(rows, ORDER))[0])
    assert "No mark: not measured, or no value." in caption
    assert "Undefined beyond the length that the scheme was built for (learned, rope)." in caption
    assert "Out of memory (alibi)." in caption
    assert caption.count("Undefined beyond") == 1  # fault: once for each panel, with other series


def test_series_without_the_longest_length_are_not_ranked_by_a_shorter_one():
    """Fault: c was ranked first by its value at 512 tokens, although it has none at 8192."""
    values = {("a", 512): 2.0, ("a", 8192): 3.0, ("b", 512): 2.1, ("b", 8192): 2.5, ("c", 512): 2.2}
    shown = pd.DataFrame([(*key, value) for key, value in values.items()])
    shown.columns = ["scheme", "eval_len", "estimate"]
    diverged = pd.DataFrame({"scheme": ["d"], "eval_len": 512, "estimate": np.nan})
    shown = pd.concat([diverged, shown]).assign(extension="none")
    assert ranked(shown, BITS) == ["d", "c", "a", "b"]


def test_series_with_retrieval_alone_have_a_row(rows):
    """Fault: KeyError for a series with retrieval and without a loss."""
    rows = rows[(rows["scheme"] != "t5") | (rows["task"] == "key_value")]
    with house_style():
        figure, _ = draw(FigureData.of(rows, ORDER))
    assert figure.axes[0].get_yticklabels()[0].get_text() == "t5"


def test_rankings_of_the_prefix_protocol_have_groups(rows):
    """Fault: the figure had no dotted lines, although the caption explained them."""
    prefix = rows["protocol"] == "prefix"
    rows = rows[(prefix & (rows["position"] <= 768)) | (rows["task"] == "key_value")]
    with house_style():
        figure, shown = draw(FigureData.of(rows, ORDER), protocol="prefix", length_multiples=[1, 8])
        assert "Dotted lines: groups by the bits per byte at 512 tokens." in texts(figure)
        assert shown.loc[shown["eval_len"] == 512, "group"].nunique() > 1
        one = FigureData.of(rows[rows["scheme"] == "alibi"], ORDER)
        assert "Dotted lines" not in texts(draw(one, protocol="prefix", length_multiples=[1, 8])[0])


def test_equal_series_cost_no_correction(rows):
    """Fault: extensions that change nothing at the training length were pairs of the correction, and weakened it."""
    rows = rows[(rows["protocol"] == "fixed_targets") & rows["scheme"].isin(["alibi", "kerple_log"])]
    copies = [
        rows[rows["scheme"] == "alibi"].assign(extension=name, cell_id=rows["cell_id"] + name)
        for name in ("one", "two")
    ]
    both = pairwise_tests(pd.concat([rows, *copies]), BITS)
    equal = both["conclusion"] == EQUAL
    assert set(zip(both.loc[equal, "a"], both.loc[equal, "b"], strict=True)) == {
        ("alibi", "alibi + one"),
        ("alibi", "alibi + two"),
        ("alibi + one", "alibi + two"),
    }
    assert both.loc[equal, "p_value"].isna().all()
    for _, part in both[~equal].groupby("eval_len"):
        assert part["p_adjusted"].tolist() == pytest.approx(benjamini_hochberg(part["p_value"].tolist()))
    assert not_told_apart(both, "alibi", 1024)[-2:] == ["alibi + one", "alibi + two"]


def test_best_and_ranking_have_one_correction():
    """Fault: "not significantly better than" at a glance and the groups of the ranking had two corrections."""
    pairs = [("a", name) for name in "bcdefg"]
    found = pd.DataFrame(pairs, columns=["a", "b"]).assign(eval_len=64, p_value=[0.02] * 5 + [0.5], seeds=3)
    found["p_adjusted"] = benjamini_hochberg(found["p_value"].tolist())
    found["conclusion"] = NOT_SIGNIFICANT
    assert not_told_apart(found, "a", 64) == ["g"]


def test_differences_of_accuracies_end_in_the_possible_range():
    """Fault: 287 intervals of the published leaderboard left [-1, 1]."""
    rows = synthetic_rows(seeds=3, documents=8, contexts=8, schemes=("alibi", "rope"))
    rows = rows[(rows["metric"] == "exact_match") & (rows["eval_len"] == 256) & (rows["extension"] == "none")]
    rows = rows[rows["task"] == "key_value"]
    chosen = rows["scheme"] == "alibi"
    rows["value_sum"] = rows["value_sum"].mask(chosen, rows["n"] * (rows["train_seed"] < 2))
    rows["value_sum"] = rows["value_sum"].mask(~chosen, 0.0)
    (line,) = pairwise_tests(rows, get_metric("exact_match")).itertuples()
    assert line.a_minus_b == pytest.approx(2 / 3)
    assert line.high == 1


def test_pairs_without_a_test_are_not_told_apart():
    """Fault: a series that was tested against no other was shown as better than all others."""
    rows = synthetic_rows(seeds=3, documents=8, contexts=2, schemes=("alibi", "t5", "learned"))
    rows = rows[rows["protocol"] == "fixed_targets"]
    found = pairwise_tests(rows[(rows["scheme"] != "alibi") | (rows["train_seed"] < 2)], BITS)
    assert not_told_apart(found, "alibi", 1024) == ["t5"]  # learned has no number there
    assert not_told_apart(pairwise_tests(rows, BITS), "alibi", 1024) == []
