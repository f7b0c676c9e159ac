"""Tables and figures of the gain of context where lengths or seeds are missing."""

import pandas as pd
import pytest
from synthetic_rows import ORDER, synthetic_rows
from test_effective_length import made

from posbench.report.figures import context_gain, house_style
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.context_gain import context_gain_metric, context_gain_table, context_gains
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.report.tables.metrics import METRICS
from posbench.report.tables.selection import expand_prefix_lengths
from posbench.report.tables.summary import aggregate

BITS = METRICS["bits_per_byte"]


@pytest.mark.parametrize("lengths", [[128, 256, 512], [64]])
def test_lengths_without_a_gain_have_no_table(lengths):
    """Fault: without the training length, all cells were dashes; with no other length, the table had no column of numbers."""
    rows = made({"rope": (2.0, 1.9, 2.5, 3.0)})
    rows = rows[rows["eval_len"].isin(lengths)]
    assert context_gain_table(rows, BITS, ORDER, "name") is None
    assert not [one.name for one in build_tables(rows) if "context_gain" in one.name]
    with house_style(), pytest.raises(MissingRowsError, match="evaluate the training length and at least"):
        context_gain.draw(FigureData.of(rows, ORDER))


def test_contexts_below_the_training_length_have_no_gain():
    """Fault: the caption "below 0 more context hurts" was also for half the training length, where it is the opposite."""
    rows = made({"rope": (2.0, 1.9, 2.5)})
    rows = rows.assign(train_len=128)
    table = context_gain_table(rows, BITS, ORDER, "name")
    assert table.header == ["scheme", "256 (2×)"]
    assert set(table.numbers["eval_len"]) == {128, 256}


def test_a_seed_without_rows_at_a_length_is_left_out_there():
    """Fault: a number over two of three seeds had no footnote where the third had no rows at this length."""
    rows = made({"rope": (2.0, 1.9), "alibi": (2.0, 1.8)}, seeds=3, spread=0.05)
    lost = (rows["scheme"] == "rope") & (rows["train_seed"] == 1) & (rows["eval_len"] == 128)
    shown = aggregate(rows[~lost], BITS).set_index(["scheme", "eval_len"])
    assert shown["seeds_left_out"].to_dict() == {
        ("alibi", 64): 0,
        ("alibi", 128): 0,
        ("rope", 64): 0,
        ("rope", 128): 1,
    }


def test_seeds_are_those_of_the_pairs():
    """Fault: "3 training seeds" for a gain of two; the third had no rows at the training length."""
    rows = made({"rope": (2.0, 1.9), "alibi": (2.0, 1.8)}, seeds=3, spread=0.05)
    lost = (rows["scheme"] == "rope") & (rows["train_seed"] == 1) & (rows["eval_len"] == 64)
    gains = context_gains(rows[~lost], BITS).set_index(["scheme", "eval_len"])
    assert gains.loc[("rope", 128), ["seeds", "seeds_left_out"]].tolist() == [2, 1]
    assert gains.loc[("alibi", 128), ["seeds", "seeds_left_out"]].tolist() == [3, 0]
    table = context_gain_table(rows[~lost], BITS, ORDER, "name")
    assert "1 of 3 seeds left out. No number: rows of this metric" in to_markdown(table)
    assert "over 160 scored tokens in 16 documents per length; 2 to 3 training seeds" in table.caption


def test_the_gain_over_the_training_length_is_no_interval_without_width():
    """Fault: the caption explained intervals without width, but only the training length has them, which is not shown."""
    rows = synthetic_rows(seeds=1, documents=16, contexts=2, schemes=("rope", "alibi"))
    tables = {one.name: one for one in build_tables(rows[rows["protocol"] == "fixed_targets"], ORDER)}
    assert "no width" not in tables["perplexity-fixed_targets-bits_per_byte-context_gain"].caption


def test_a_gain_is_negative_where_a_loss_is_not():
    assert context_gain_metric(BITS).shown(-0.1) == -0.1


def test_lengths_of_the_prefix_protocol_have_the_same_tokens_in_every_series():
    """Fault: at 77 tokens, a scheme measured there had tokens 1 to 77, and the others 1 to 72."""
    rows = synthetic_rows(documents=2, contexts=2, schemes=("alibi",)).query("protocol == 'prefix'")
    own = rows[rows["position"] <= 64].assign(scheme="rope", extension="dynamic_ntk", eval_len=77)
    own = pd.concat([own, own[own["position"] == 64].assign(position=77)])
    assert 77 not in set(expand_prefix_lengths(pd.concat([rows, own]))["eval_len"])
    assert 77 in set(expand_prefix_lengths(own)["eval_len"])
