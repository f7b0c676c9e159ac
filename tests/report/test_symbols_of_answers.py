"""Scores of answers of several symbols: per symbol where the rows count symbols, with the chance of what they count."""

from synthetic_rows import synthetic_rows

from posbench.report.tables.layout import build_tables
from posbench.report.tables.metrics import get_metric


def test_the_log_probability_of_a_long_answer_is_per_symbol():
    """Fault: "log-probability of the answer" over "1,216 answers in 64 sequences", of 64 answers of 19 symbols."""
    rows = synthetic_rows(seeds=1, documents=8, contexts=16, schemes=("rope", "alibi"))
    rows = rows[(rows["task"] == "key_value") & (rows["metric"] == "logprob")]
    copied = rows.assign(task="algorithmic", protocol="copy", variant="", n=19)
    for part, label, items in ((rows, "of the answer", "questions"), (copied, "of a symbol", "symbols")):
        (table,) = [one for one in build_tables(part) if one.about.get("kind") == "values"]
        assert f"Log-probability {label} (nats) over" in table.caption
        assert f" {items} in " in table.caption


def test_chance_stands_beside_the_metric_that_it_belongs_to():
    """Fault: one half, the chance of one read of flip_flop, stood beside the accuracy of all reads of a sequence."""
    assert get_metric("exact_match", "flip_flop").baselines == ()
    assert get_metric("symbol_accuracy", "flip_flop").baselines == ("chance",)
