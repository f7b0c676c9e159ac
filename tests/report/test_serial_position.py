"""Primacy and recency: examples by hand, intervals, and contexts with a single record."""

import numpy as np
import pandas as pd
import pytest
from synthetic_rows import ORDER, completed

from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.report.tables.metrics import METRICS
from posbench.report.tables.serial_position import primacy_recency

EXACT = METRICS["exact_match"]


def contexts(
    accuracies: dict[float, float], count: int = 20, seed: int = 0, own: bool = False
) -> pd.DataFrame:
    """Rows with exact accuracies by depth; every context has all depths, or a single one if `own`."""
    lines = [
        {
            "doc_id": f"c{index}-{depth}" if own else f"c{index}",
            "depth": depth,
            "value_sum": float(index < accuracy * count),
        }
        for depth, accuracy in accuracies.items()
        for index in range(count)
    ]
    accuracyd = {
        "cell_id": "c",
        "model_id": f"m{seed}",
        "scheme": "rope",
        "extension": "none",
        "model_size": "tiny",
    }
    accuracyd |= {"n_params": 1, "train_len": 64, "train_tokens": 1, "train_seed": seed, "corpus": "sources"}
    accuracyd |= {"task": "passkey", "variant": "", "protocol": "passkey", "eval_len": 64, "eval_seed": 0}
    accuracyd |= {"example": 0, "metric": "exact_match", "n": 1, "unit": "fraction", "status": "ok"}
    rows = pd.DataFrame(lines).assign(**accuracyd, kernel="sdpa", dtype="float32")
    return completed(rows)


CURVE = {0.0: 0.9, 0.1: 0.7, 0.25: 0.5, 1 / 3: 0.2, 0.5: 0.3, 2 / 3: 0.4, 0.8: 0.5, 0.9: 0.6, 1.0: 1.0}


@pytest.mark.parametrize("own", [False, True])
def test_indices_by_hand(own):
    line = primacy_recency(contexts(CURVE, own=own), EXACT).iloc[0]
    assert (line["first"], line["middle"], line["last"]) == pytest.approx((0.8, 0.3, 0.8))
    assert (line["primacy"], line["recency"]) == pytest.approx((0.5, 0.5))
    assert line["primacy_low"] < 0.5 < line["primacy_high"]
    # Fifths: 0 and .1; .25 and 1/3; .5; 2/3; .8, .9 and 1. The middle one is the lowest.
    assert (line["worst_depth"], line["worst_fifth"]) == pytest.approx((0.5, 0.3))


def test_records_of_a_context_are_drawn_together():
    """The difficulty of a context cancels in differences between its records."""
    both = primacy_recency(contexts({0.0: 0.5, 0.5: 0.5, 1.0: 0.5}), EXACT).iloc[0]
    separate = primacy_recency(contexts({0.0: 0.5, 0.5: 0.5, 1.0: 0.5}, own=True), EXACT).iloc[0]
    assert (both["primacy_low"], both["primacy_high"]) == (0, 0)
    assert separate["primacy_high"] - separate["primacy_low"] > 0.3


def test_intervals_over_several_seeds():
    accuracys = (0.6, 0.8, 0.9)
    rows = pd.concat(
        [
            contexts(CURVE | {0.0: accuracy, 0.1: accuracy}, seed=seed)
            for seed, accuracy in enumerate(accuracys)
        ]
    )
    line = primacy_recency(rows, EXACT).iloc[0]
    values = np.array(accuracys) - 0.3
    assert line["primacy"] == pytest.approx(values.mean())
    # The contexts differ little beside the seeds.
    half_width = 4.302653 * values.std(ddof=1) / np.sqrt(3)
    assert line["primacy_high"] == pytest.approx(values.mean() + half_width, rel=0.05)


def test_models_that_have_not_learned_have_no_index(rows):
    numbers = primacy_recency(rows[rows["task"] == "key_value"], EXACT).set_index(
        ["scheme", "extension", "eval_len"]
    )
    for index in ("primacy", "recency", "middle", "worst_fifth"):
        assert np.isfinite(numbers.loc[("nope", "none", 64), index])
        assert np.isnan(numbers.loc[("nope", "none", 256), index])
        assert np.isnan(numbers.loc[("learned", "none", 256), index])
    assert numbers.loc[("sinusoidal", "none", 256), "primacy"] > 0.5  # it retrieves records at the start
    assert numbers.loc[("rope", "window", 256), "recency"] > 0.5


def test_tables_of_serial_position(rows):
    found = {table.name: table for table in build_tables(rows, ORDER)}
    table = found["key_value-synthetic_records-exact_match-serial_position"]
    text = to_markdown(table)
    assert (
        text.count("| scheme | retrieval accuracy | first tenth | middle third | last tenth | primacy |") == 3
    )
    assert "Primacy: accuracy on the first tenth of the records minus the middle third" in text
    assert "(chance) | 0.06" in text
    assert "95% confidence over contexts" in text
    assert table.numbers["chance"].eq(1 / 16).all()


def test_bounds_of_the_indices_are_possible():
    """Fault: a primacy of .9 had the interval [.7, 1.08]."""
    both = pd.concat(
        [contexts({0.0: 1.0, 0.5: low, 1.0: 1.0}, seed=seed) for seed, low in enumerate((0, 0, 0.6))]
    )
    line = primacy_recency(both, EXACT).iloc[0]
    assert (line["primacy_high"], line["recency_high"]) == (1, 1)
    assert line["primacy_low"] < line["primacy"]


def test_lengths_without_a_number_have_no_table(rows):
    """Fault: where no series has learned the task, tables at longer lengths were "over no queries in no sequences"."""
    alone = rows[(rows["scheme"] == "nope") & (rows["task"] == "key_value")]
    (table,) = [one for one in build_tables(alone) if "serial_position" in one.name]
    assert not table.more
    assert "64 tokens" in table.title


def test_fifths_that_are_equally_low_are_no_lowest_one():
    """Fault: with equal fifths, the table said "lowest at 0.1"."""
    rows = contexts(dict.fromkeys([0.0, 0.3, 0.5, 0.7, 1.0], 0.5))
    line = primacy_recency(rows, EXACT).iloc[0]
    assert np.isnan(line["worst_depth"])
    assert line["worst_fifth"] == 0.5
    table = next(one for one in build_tables(rows) if "serial_position" in one.name)
    assert table.header[-1] == "lowest at"
    assert table.body[0][-1].text == ""
