"""Figures and summaries of attention: means over layers and heads, and the head of the answer."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_rows import ORDER
from test_figure_kinds import texts

import posbench
from posbench.report.figures import attention, attention_by_distance, draw_figure, house_style
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.layout import build_tables
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.summary import aggregate
from posbench.results.rows import COLUMNS

CONFIGS = Path(posbench.__file__).parents[1] / "configs" / "figure"
LAYERS, HEADS = 2, 3
# The head with the most attention to the answer at the shortest length, and this attention by length; at long contexts another head has more.
OF_ANSWER, ATTENTION = (1, 2), {64: 0.9, 128: 0.6, 256: 0.3}


def of_attention(key_value: pd.DataFrame) -> pd.DataFrame:
    """Rows of attention for the contexts of retrieval, with two records per context."""
    cells = key_value.drop_duplicates(["scheme", "extension", "train_seed", "eval_len", "doc_id"])
    cells = cells.assign(task="attention", position=pd.NA, depth=np.nan)
    undefined = cells[cells["status"] == "undefined"].assign(metric="attention_entropy")
    cells = cells[(cells["status"] != "undefined") & (cells["doc_id"] < "ctx002")].assign(status="ok")
    parts = [undefined]
    for layer, head in np.ndindex(LAYERS, HEADS):
        here = cells.assign(layer=layer, head=head)
        length = here["eval_len"].astype(float)
        parts.append(
            here.assign(
                metric="attention_entropy", unit="nats", n=2, value_sum=2 * (layer + 1) / 4 * np.log(length)
            )
        )
        parts.append(
            here.assign(metric="sink_attention", unit="fraction", n=2, value_sum=2 * 0.1 * (head + 1))
        )
        parts.append(here.assign(metric="last_quarter_attention", unit="fraction", n=2, value_sum=2 * 0.25))
        share = (
            here["eval_len"].map(ATTENTION) if (layer, head) == OF_ANSWER else 0.05 * here["eval_len"] / 64
        )
        for record in range(2):
            one = here.assign(
                metric="answer_attention", unit="fraction", n=1, position=record, depth=float(record)
            )
            parts.append(one.assign(value_sum=share.astype(float)))
        for power in range(9):
            bucket = here[here["eval_len"] > 2 ** (power - 1)].assign(
                metric="attention_at_distance", unit="fraction", n=2
            )
            parts.append(bucket.assign(position=2**power, value_sum=2 * 0.1 * (layer + 1)))
    rows = pd.concat(parts, ignore_index=True)
    return rows.astype(dict.fromkeys(("position", "layer", "head"), "Int64"))[list(COLUMNS)]


@pytest.fixture(scope="module")
def attended(rows) -> pd.DataFrame:
    return pd.concat([rows, of_attention(rows[rows["task"] == "key_value"])], ignore_index=True)


def config(name: str, **changes) -> dict:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | changes


def test_axes_end_with_their_data_and_captions_use_plain_words(attended):
    """Fault: the axis of panel C ended at the distances of D, and the caption spoke of a "look-up head"."""
    with house_style():
        figure, _ = attention.draw(FigureData.of(attended, ORDER))
    at_home, far = (figure.axes[panel].get_xlim()[1] for panel in (2, 3))
    assert (at_home, far) == pytest.approx((6.3, 8.3))
    assert "of each model, the head with the largest weight on the answer at 64 tokens" in texts(figure)
    assert "Each point of A and B is the mean over one of 8 equal parts" in texts(figure)


def test_the_head_of_the_answer_is_chosen_at_the_shortest_context(attended, tmp_path):
    png, pdf, csv = draw_figure(config("attention"), attended, tmp_path, ORDER)
    assert png.exists()
    assert pdf.exists()
    shown = pd.read_csv(csv)
    gold = shown[(shown["panel"] == "answer_attention") & (shown["scheme"] == "alibi")]
    assert gold.set_index("eval_len")["estimate"].to_dict() == pytest.approx(ATTENTION)
    by_depth = shown[(shown["panel"] == "answer_attention_by_depth") & (shown["eval_len"] == 256)]
    assert by_depth["estimate"].dropna().to_numpy() == pytest.approx(0.3)
    entropy = shown[(shown["panel"] == "attention_entropy") & (shown["scheme"] == "alibi")]
    assert entropy["estimate"].to_numpy() == pytest.approx(0.375)
    learned = shown[(shown["panel"] == "attention_entropy") & (shown["scheme"] == "learned")]
    assert learned["status"].tolist() == ["ok", "undefined", "undefined"]


def test_figure_of_extensions_has_the_scheme_and_requires_extensions(attended, tmp_path):
    _, _, csv = draw_figure(config("attention_extensions"), attended, tmp_path, ORDER)
    shown = pd.read_csv(csv)
    assert set(shown["scheme"]) == {"rope"}
    assert {"none", "pi", "rerope"} <= set(shown["extension"])
    with pytest.raises(MissingRowsError, match="extensions"):
        draw_figure(
            config("attention_extensions"), attended[attended["extension"] == "none"], tmp_path, ORDER
        )


def test_attention_by_distance_is_drawn_for_each_layer(attended, tmp_path):
    _, _, csv = draw_figure(config("attention_by_distance"), attended, tmp_path, ORDER)
    shown = pd.read_csv(csv)
    for layer in range(LAYERS):
        assert shown.loc[shown["layer"] == layer, "estimate"].to_numpy() == pytest.approx(0.1 * (layer + 1))
    assert shown.loc[shown["eval_len"] == 64, "position"].max() == 64
    # Fault: the caption gave one possible reason for a missing line, whatever the reason was.
    with house_style():
        figure, _ = attention_by_distance.draw(FigureData.of(attended, ORDER))
    assert "Undefined beyond the length that the scheme was built for (learned)." in texts(figure)


@pytest.mark.parametrize("name", ["attention", "attention_by_distance"])
def test_intervals_of_one_seed_are_in_the_csv(name, attended, tmp_path):
    """Fault: with one seed, the csv of attention figures had no intervals over contexts; all other figures had them."""
    rows = pd.concat([attended.assign(doc_id=attended["doc_id"] + copy) for copy in "abcd"])
    shown = pd.read_csv(draw_figure(config(name), rows, tmp_path, ORDER)[2])
    assert shown.loc[shown["estimate"].notna(), "low"].notna().all()


def test_summaries_are_means_over_heads_unless_grouped_by_head(attended):
    rows = attended[(attended["task"] == "attention") & (attended["scheme"] == "alibi")]
    first = get_metric("sink_attention")
    together = aggregate(rows, first)
    assert together["estimate"].to_numpy() == pytest.approx(0.2)
    by_head = aggregate(rows, first, by=["eval_len", "layer", "head"])
    assert len(by_head) == 3 * LAYERS * HEADS
    assert by_head["estimate"].to_numpy() == pytest.approx(0.1 * (by_head["head"].astype(float) + 1))
    assert (by_head["n_docs"] == 2).all()


def test_attention_tables_have_no_best_and_exclude_distances(attended):
    made = {table.name: table for table in build_tables(attended, ORDER)}
    names = [name for name in made if name.startswith("attention")]
    assert {name.split("-")[2] for name in names} == {
        "attention_entropy",
        "sink_attention",
        "last_quarter_attention",
        "answer_attention",
    }
    for name in names:
        assert "bold" not in made[name].caption
        assert not any(cell.best for line in made[name].body for cell in line)
