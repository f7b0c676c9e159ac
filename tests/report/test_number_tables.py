"""Numbers are weighted by tokens, and tables show which of them are conclusive."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from synthetic_rows import ORDER

from posbench.errors import ConfigError, DataError
from posbench.report.tables.formatting import format_interval, format_number
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_latex, to_markdown
from posbench.report.tables.metrics import METRICS, get_metric
from posbench.report.tables.pairwise_tests import pairwise_tests
from posbench.report.tables.selection import expand_prefix_lengths, ordered_series, propagate_gate
from posbench.report.tables.summary import aggregate, baseline_values

BITS, PERPLEXITY, EXACT = (METRICS[name] for name in ("bits_per_byte", "perplexity", "exact_match"))


def of(rows: pd.DataFrame, protocol: str, scheme: str | None = None, extension: str = "none") -> pd.DataFrame:
    rows = rows[rows["protocol"] == protocol]
    return rows if scheme is None else rows[(rows["scheme"] == scheme) & (rows["extension"] == extension)]


def at(numbers: pd.DataFrame, length: int) -> pd.Series:
    return numbers[numbers["eval_len"] == length].iloc[0]


def test_perplexity_and_bits_are_token_weighted(rows):
    """Two documents of 10 and 1000 tokens, by hand; not the mean of the two."""
    part = of(rows, "fixed_targets", "rope")
    part = part[part["eval_len"] == 64]
    nll, size = (part[part["metric"] == metric].iloc[:2] for metric in ("nll", "bytes"))
    made = pd.concat(
        [
            nll.assign(value_sum=[30.0, 1000.0], n=[10, 1000]),
            size.assign(value_sum=[20.0, 4000.0], n=[10, 1000]),
        ]
    )
    assert at(aggregate(made, PERPLEXITY), 64)["estimate"] == pytest.approx(math.exp(1030 / 1010))
    assert at(aggregate(made, BITS), 64)["estimate"] == pytest.approx(1030 / math.log(2) / 4020)


def test_seeds_are_averaged_in_nats(rows_of_three_seeds):
    part = of(rows_of_three_seeds, "fixed_targets", "alibi")
    line = at(aggregate(part, PERPLEXITY), 128)
    nll = (
        part[(part["eval_len"] == 128) & (part["metric"] == "nll")]
        .groupby("train_seed")[["value_sum", "n"]]
        .sum()
    )
    rates = nll["value_sum"] / nll["n"]
    assert line["estimate"] == pytest.approx(math.exp(rates.mean()))
    assert line["low"] < line["estimate"] < line["high"]
    assert (line["seeds"], line["interval_method"]) == (3, "95% two-level t over 3 seeds")


def test_prefix_is_the_sum_of_buckets(rows):
    part = of(rows, "prefix", "alibi")
    numbers = aggregate(expand_prefix_lengths(part), BITS)
    assert list(numbers["eval_len"]) == [64, 128, 256, 512, 1024]
    within = part[part["position"] <= 256]
    wanted = (
        within[within["metric"] == "nll"]["value_sum"].sum()
        / within[within["metric"] == "bytes"]["value_sum"].sum()
    )
    assert at(numbers, 256)["estimate"] == pytest.approx(wanted / math.log(2))


def test_prefix_uses_the_shortest_sufficient_context(rows):
    """Losses at 512 tokens come from contexts of 512 tokens, even if there are contexts of 1024 tokens."""
    part = of(rows, "prefix", "alibi")
    shorter = part[part["position"] <= 512].assign(eval_len=512, cell_id="shorter")
    shorter = shorter.assign(
        value_sum=shorter["value_sum"].mask(shorter["metric"] == "nll", shorter["value_sum"] * 3)
    )
    once = aggregate(expand_prefix_lengths(part), BITS)
    both = aggregate(expand_prefix_lengths(pd.concat([part, shorter])), BITS)
    assert (both["estimate"] / once["estimate"]).tolist() == pytest.approx([3, 3, 3, 3, 1])
    assert (both["n"] == once["n"]).all()


def test_missing_bytes_raise(rows):
    part = of(rows, "fixed_targets", "rope")
    with pytest.raises(DataError, match="'bytes'"):
        aggregate(part[part["metric"] == "nll"], BITS)


def test_undefined_has_no_number(rows):
    numbers = aggregate(of(rows, "fixed_targets", "learned"), BITS)
    assert at(numbers, 64)["status"] == "ok"
    assert np.isfinite(at(numbers, 64)["estimate"])
    for length in (128, 1024):
        assert at(numbers, length)["status"] == "undefined"
        assert np.isnan(at(numbers, length)["estimate"])


def test_the_gate_spreads_from_the_training_length(rows):
    """The status not_learned at the training length spreads to all lengths and extensions of the model."""
    part = of(rows, "synthetic_records", "rope")
    extended = of(rows, "synthetic_records", "rope", "yarn")
    other = of(rows, "synthetic_records", "alibi")
    home = (part["eval_len"] == 64).map({True: "not_learned", False: "ok"})
    together = pd.concat([part.assign(status=home), extended, other])
    numbers = aggregate(together, EXACT)
    rope = numbers[numbers["scheme"] == "rope"]
    assert set(rope["status"]) == {"not_learned"}
    assert np.isfinite(rope[(rope["extension"] == "none") & (rope["eval_len"] == 64)]["estimate"]).all()
    assert rope[rope["eval_len"] > 64]["estimate"].isna().all()
    assert set(numbers[numbers["scheme"] == "alibi"]["status"]) == {"ok"}
    found = pairwise_tests(together, EXACT)
    assert set(found[found["p_value"].notna()]["eval_len"]) == {64}
    assert set(found[found["eval_len"] > 64]["conclusion"]) == {"not tested: not learned"}


def test_the_gate_stays_within_its_task(rows):
    status = propagate_gate(rows)
    assert set(status[(status["scheme"] == "nope") & (status["task"] == "perplexity")]["status"]) == {"ok"}


def test_seeds_without_a_number_are_left_out_and_counted(rows_of_three_seeds):
    part = of(rows_of_three_seeds, "fixed_targets", "alibi")
    failed = (part["train_seed"] == 2) & (part["eval_len"] == 512)
    part = part.assign(
        value_sum=part["value_sum"].mask(failed), status=part["status"].mask(failed, "out_of_memory")
    )
    line = at(aggregate(part, BITS), 512)
    assert (line["seeds"], line["seeds_left_out"], line["status"]) == (2, 1, "out_of_memory")
    text = next(to_markdown(t) for t in build_tables(part) if "bits_per_byte" in t.name)
    assert "1 of 3 seeds left out. Out of memory." in text


def test_baselines_are_means_over_contexts(rows):
    found = baseline_values(of(rows, "synthetic_records"))
    assert found.loc[64, "chance"] == pytest.approx(1 / 16)
    assert found.loc[256, "random_in_context"] == pytest.approx(0.05 + 1 / 72)


def test_fractions_are_weighted_by_counts(rows):
    part = of(rows, "synthetic_records", "rope")
    whole = part[(part["metric"] == "predicted_in_context") & (part["eval_len"] == 64)].iloc[:2]
    numbers = aggregate(whole.assign(value_sum=[30.0, 5.0], n=[30, 10]), METRICS["predicted_in_context"])
    assert at(numbers, 64)["estimate"] == pytest.approx(0.875)


def test_paired_differences(rows):
    found = pairwise_tests(of(rows, "fixed_targets"), BITS, ORDER)
    pair = found[(found["eval_len"] == 256) & (found["a"] == "rope") & (found["b"] == "alibi")].iloc[0]
    numbers = aggregate(of(rows, "fixed_targets"), BITS).set_index(["scheme", "extension", "eval_len"])[
        "estimate"
    ]
    assert pair["a_minus_b"] == pytest.approx(numbers["rope", "none", 256] - numbers["alibi", "none", 256])
    assert pair["low"] > 0.5
    assert pair["p_value"] < pair["p_adjusted"] < 0.001
    at_64 = found[found["eval_len"] == 64]
    assert len(at_64) == 12 * 11 / 2
    at_128 = found[found["eval_len"] == 128]
    of_learned = at_128[(at_128["a"] == "learned") | (at_128["b"] == "learned")]
    assert set(of_learned["conclusion"]) == {"not tested: undefined"}
    assert of_learned["p_value"].isna().all()


def test_order_of_series(rows):
    assert [s for s, e in ordered_series(rows, ORDER) if e == "none"] == ORDER
    assert ordered_series(rows, ["t5"])[:2] == [("t5", "none"), ("alibi", "none")]
    assert ordered_series(rows, ["rope + yarn"])[7] == ("rope", "yarn")


def test_tables_of_an_experiment(rows):
    found = {table.name: table for table in build_tables(rows, ORDER)}
    assert set(found) == {
        "models",
        *(
            f"perplexity-{p}-{m}"
            for p in ("fixed_targets", "non_overlapping", "prefix")
            for m in ("bits_per_byte", "bits_per_byte-differences", "bits_per_byte-ranking", "perplexity")
        ),
        *(f"key_value-synthetic_records-{m}" for m in ("exact_match", "logprob", "predicted_in_context")),
        "perplexity-fixed_targets-bits_per_byte-context_gain",
        "perplexity-fixed_targets-bits_per_byte-effective_length",
        *(
            f"key_value-synthetic_records-exact_match-{kind}"
            for kind in ("differences", "ranking", "effective_length", "serial_position")
        ),
    }
    bits = to_markdown(found["perplexity-fixed_targets-bits_per_byte"])
    lines = [line.split(" | ") for line in bits.splitlines() if line.startswith("|")]
    assert lines[0][:3] == ["| scheme", "64 (1×)", "128 (2×)"]
    by_name = {line[0].strip("| "): line[1:] for line in lines}
    assert by_name["learned"][1:4] == ["–†"] * 3
    assert "† Undefined" in bits
    assert "95% confidence over" in bits
    for name, best in (
        ("perplexity-fixed_targets-bits_per_byte", "min"),
        ("key_value-synthetic_records-exact_match", "max"),
    ):
        table = found[name]
        for column, (_, here) in enumerate(table.numbers.groupby("eval_len"), 1):
            shown = here[(here["status"] == "ok") & (here["seeds_left_out"] == 0)]["estimate"]
            bold = {line[column].text.split()[0] for line in table.body if line[column].best}
            assert bold == {format_number(shown.agg(best))}
    retrieval = to_markdown(found["key_value-synthetic_records-exact_match"])
    assert "not learned" in retrieval
    assert "(chance) | 0.06" in retrieval
    assert "401,216 | 921,600 | 1 |" in to_markdown(found["models"])


def test_latex_is_escaped(rows):
    for table in build_tables(rows[rows["scheme"].isin(["kerple_log", "learned", "alibi"])]):
        text = to_latex(table)
        assert r"\toprule" in text
        assert text.isascii()
        body = re.sub(r"\\label\{tab:.*\}", "", text)
        assert "_" not in body.replace(r"\_", "")
        assert "%" not in body.replace(r"\%", "")
    assert r"\textbf{" in text


def test_settings_are_never_mixed(rows):
    rows = of(rows, "fixed_targets")
    longer = rows.assign(train_len=128, model_id=rows["model_id"] + "-128", cell_id=rows["cell_id"] + "-128")
    names = [table.name for table in build_tables(pd.concat([rows, longer]))]
    assert "models-64" in names
    assert "perplexity-fixed_targets-bits_per_byte-128" in names


def test_failed_experiment_has_tables(rows):
    part = of(rows, "fixed_targets", "rope")
    found = list(build_tables(part.assign(value_sum=np.nan, status="diverged")))
    assert "Diverged: losses of the training" in to_markdown(found[-1])
    assert "–†" in to_markdown(found[-1])


def test_unknown_metric_raises():
    with pytest.raises(ConfigError, match="did you mean 'perplexity'"):
        get_metric("perplexty")


@pytest.mark.parametrize("schemes", [["alibi"], ["alibi", "rope", "kerple_log"]])
def test_one_document_has_no_interval_and_the_table_says_so(rows, schemes):
    """Not a nan in a table: the number alone, and a caption that names the reason."""
    part = of(rows, "fixed_targets")
    part = part[part["scheme"].isin(["alibi", "rope", "kerple_log"]) & (part["extension"] == "none")]
    part = part[~part["scheme"].isin(schemes) | (part["doc_id"] == part["doc_id"].iat[0])]
    for table in build_tables(part):
        text = to_markdown(table)
        assert "nan" not in text.lower()
        if table.name.endswith("bits_per_byte"):
            few = (
                "; none for points with fewer than 3 seeds and 8 documents"
                if len(schemes) == 1
                else "no interval"
            )
            assert few in table.caption
        if "differences" in table.name:
            assert "not tested: too few documents" in text


def test_rows_without_one_of_their_metrics_have_tables(rows_of_three_seeds):
    """Fault: KeyError 'ok' if one seed had no rows of a metric; a dash without a reason if no seed had any."""
    part = of(rows_of_three_seeds, "synthetic_records")
    missing = "No number: rows of this metric, or of the training length, are missing."
    for lost, text in (([1], f"1 of 3 seeds left out. {missing}"), ([0, 1, 2], f"† {missing}")):
        without = (part["scheme"] == "alibi") & part["train_seed"].isin(lost) & (part["metric"] == "logprob")
        table = next(one for one in build_tables(part[~without]) if one.name.endswith("-logprob"))
        assert text in to_markdown(table)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0021234, "0.0021"),  # fault: fractions of key tokens were all 0.00
        (-0.0021234, "-0.0021"),
        (math.exp(60), "1.14e+26"),  # fault: 27 digits
        (0.0, "0.00"),
        (-1e-17, "0.00"),
        (0.0123, "0.01"),
        (0.0022, "0.0022"),
        (1234.5, "1,234"),
        (math.nan, ""),
    ],
)
def test_numbers_of_every_size_have_digits(value, text):
    assert format_number(value) == text
    assert format_interval(value, value) == (f"[{text}, {text}]" if text else "")


@pytest.mark.parametrize(("name", "bound"), [("rank", 1.0), ("logprob", 0.0), ("bits_per_byte", 0.0)])
def test_bounds_of_intervals_are_possible(name, bound):
    """Fault: mean ranks of 1.03 [0.98, 1.22], and log-probabilities of -0.04 [-0.20, 0.01]."""
    assert {METRICS[name].shown(bound + shift) for shift in (-0.1, 0.1)} == {
        bound,
        bound + (0.1 if name != "logprob" else -0.1),
    }
