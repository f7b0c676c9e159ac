"""Captions once derived "the last N tokens" from sums: N was twice as large where a document gave two segments."""

import pandas as pd
from synthetic_rows import ORDER, synthetic_rows
from test_figure_kinds import texts

from posbench.report.figures import house_style, loss_by_position, panels, retrieval_by_position
from posbench.report.figures.figure_data import FigureData
from posbench.report.tables import captions
from posbench.report.tables.caption_text import OWN_TOKENS, TUNED
from posbench.report.tables.captions import captions_with, experiment_note, text, variants
from posbench.report.tables.formatting import multiple_of
from posbench.report.tables.gate_caption import gate
from posbench.report.tables.layout import BEST_IN_BOLD, build_tables
from posbench.report.tables.metrics import METRICS
from posbench.report.tables.summary import aggregate
from posbench.results.gate import apply_gate


def caption(rows: pd.DataFrame) -> str:
    rows = rows[(rows["protocol"] == "fixed_targets") & (rows["scheme"] == "rope")]
    return next(table for table in build_tables(rows) if "bits_per_byte" in table.name).caption


def test_targets_of_a_document_with_two_segments_are_those_of_a_segment() -> None:
    rows = synthetic_rows(documents=4, contexts=2)
    assert "the last 16 tokens of each document are" in caption(rows)
    two = rows.assign(example=rows["doc_id"].map({f"doc{d:03d}": d for d in range(4)}).fillna(0).astype(int))
    two = two.assign(doc_id=two["doc_id"].replace({"doc001": "doc000", "doc003": "doc002"}))
    assert "the last 16 tokens of each segment of a document are" in caption(two)


def test_number_of_targets_is_left_out_where_it_differs() -> None:
    rows = synthetic_rows(documents=4, contexts=2)
    rows.loc[rows["doc_id"] == "doc001", "n"] = 15
    assert "the last tokens of each document are" in caption(rows)


def test_a_gate_that_some_seeds_miss_says_how_many(rows_of_three_seeds: pd.DataFrame) -> None:
    """A caption once said that t5 has no value beyond the training length, beside the line of its two other seeds."""
    rows = rows_of_three_seeds
    missed = (rows["scheme"] == "alibi") & (rows["train_seed"] == 1) & (rows["metric"] == "exact_match")
    rows = apply_gate(rows.assign(value_sum=rows["value_sum"].mask(missed & rows["value_sum"].notna(), 0.0)))
    with house_style():
        figure, _ = retrieval_by_position.draw(FigureData.of(rows, ORDER))
    assert (
        "Gate: a model has values at longer contexts only if its accuracy at the training length, without an extension, is "
        "at least 0.90. Left out at longer contexts: alibi (1 of 3 seeds)."
    ) in texts(figure)


def test_a_scheme_that_ends_has_its_line_and_a_cross(rows_of_three_seeds: pd.DataFrame) -> None:
    """Loss by position once left out the learned table, and the caption did not say so."""
    rows = rows_of_three_seeds[rows_of_three_seeds["protocol"] == "prefix"]
    short = rows[rows["position"] <= 64].assign(scheme="learned", eval_len=64)
    past = short[short["position"] == 64].assign(
        eval_len=1024, position=pd.NA, value_sum=float("nan"), n=0, status="undefined"
    )
    with house_style():
        figure, shown = loss_by_position.draw(FigureData.of(pd.concat([rows, short, past]), ORDER))
    assert shown[shown["scheme"] == "learned"]["position"].max() == 64
    assert "Cross: no value, or not measured, at later positions." in texts(figure)
    # Fault: the line to its label at the left edge crossed all curves, and "a point" stood for bends without markers.
    (label,) = [text for text in figure.axes[0].texts if text.get_text() == "learned ×"]
    assert label.get_position()[0] > 0.3
    assert "not every value has a marker" in texts(figure)
    assert "Undefined beyond the length that the scheme was built for (learned)" in texts(figure)


def test_panels_of_one_metric_are_described_once(rows: pd.DataFrame) -> None:
    """A caption of two panels of one metric once gave two sample sizes, and did not say which was whose."""
    found = {"task": "key_value", "metric": "exact_match"}
    both = [{**found, "extension": "none"}, {**found, "scheme": "rope"}]
    with house_style():
        figure, _ = panels.draw(FigureData.of(rows, ORDER), title="Two", panels=both)
    assert texts(figure).count("Retrieval accuracy over") == 1


def test_the_longest_length_has_a_tick(rows: pd.DataFrame) -> None:
    """An axis once had ticks at powers of two alone: copying at three times the length ended beyond the last tick."""
    rows = rows[rows["eval_len"] <= 512].replace({"eval_len": {512: 384}})
    loss = {"task": "perplexity", "metric": "bits_per_byte", "protocol": "fixed_targets"}
    with house_style():
        figure, _ = panels.draw(FigureData.of(rows, ORDER), title="One", panels=[loss])
    assert list(figure.axes[0].get_xticks()) == [64, 128, 256, 384]


def test_lengths_near_a_doubling_have_ticks_of_their_own(rows: pd.DataFrame) -> None:
    """Fault: the tick of 202 tokens read "204, 2×", and that of 302 "2.961×", where tables and rows have 202."""
    rows = rows[rows["eval_len"] <= 256].replace({"eval_len": {64: 102, 128: 202, 256: 302}})
    loss = {"task": "perplexity", "metric": "bits_per_byte", "protocol": "fixed_targets"}
    with house_style():
        figure, _ = panels.draw(FigureData.of(rows.assign(train_len=102), ORDER), title="One", panels=[loss])
    axis = figure.axes[0].xaxis
    labels = axis.get_major_formatter().format_ticks(list(axis.get_ticklocs()))
    assert labels == ["102\n1×", "202\n1.98×", "302\n2.96×"]
    assert multiple_of(64 * 1024, 64) == "1024×"


def test_ranges_of_symbols_are_named(rows: pd.DataFrame) -> None:
    """Fault: readers of length generalization had to compute the symbols of a length from "(N - 2) / 2"."""
    copied = rows[rows["task"] == "key_value"].assign(task="length_generalization", protocol="teacher_forced")
    copied = copied.replace({"eval_len": {64: 102, 128: 202, 256: 302}}).assign(train_len=102)
    words = "102, 202, 302 tokens: answers to inputs of up to 50, 51 to 100, 101 to 150 symbols."
    tables = [table for table in build_tables(copied) if "exact_match" in table.name]
    assert words in tables[0].caption


def test_fine_tuned_models_are_described_where_they_are_drawn() -> None:
    """The caption of Position Interpolation without fine-tuning once listed four fine-tuned models."""
    note = f"rope: rope_theta 500. {TUNED} tuned_k2 (pi, factor 2), tuned_k4 (pi, factor 4)."
    with captions_with(note):
        plain, tuned = (pd.DataFrame({"extension": ["none", name]}) for name in ("pi_k2", "tuned_k4"))
        assert experiment_note([plain]) == "rope: rope_theta 500."
        assert experiment_note([plain, tuned]) == note


def test_captions_of_symbols_name_no_text(rows: pd.DataFrame) -> None:
    """Fault: captions of length generalization named Python source code, which neither training nor task contains."""
    copied = rows[rows["task"] == "key_value"].assign(task="mqar", protocol="mqar")
    for note, named in (("All training sequences are synthetic (mqar).", False), ("", True)):
        tables = build_tables(copied, note=note)
        assert tables
        assert {"Text: " in table.caption for table in tables if table.name != "models"} == {named}
    # Fault: pairs that are spread through text are no symbols alone.
    with captions_with("All training sequences are synthetic (mqar_spread)."):
        assert text(copied.assign(variant="spread")).startswith("Text: ")


def test_variants_of_mqar_have_names_of_their_own(rows: pd.DataFrame) -> None:
    """Fault: a caption of associative recall had "Variants: question after the context, num pairs=4"."""
    recall = rows[rows["task"] == "key_value"].assign(task="mqar", protocol="mqar")
    assert variants([recall]) == ""
    both = [recall, recall.assign(variant="num_pairs=4")]
    assert variants(both) == "Variants: a pair for every 16 tokens, 4 pairs at every length."


def test_series_below_the_gate_are_named_where_they_have_no_row(rows: pd.DataFrame) -> None:
    """Fault: "all models reach an accuracy of 0.90" in captions of rankings, which have only the series that do."""
    tables = {table.name: table for table in build_tables(rows, ORDER)}
    name = "key_value-synthetic_records-exact_match"
    ranking = tables[f"{name}-ranking"]
    assert "nope" not in ranking.numbers["scheme"].tolist()
    assert "Left out at longer contexts: nope." in ranking.caption
    assert "Not ranked: learned (undefined), nope (not learned)." in ranking.caption
    positions = tables[f"{name}-serial_position"]
    assert all("Left out at longer contexts: nope." in one.caption for one in (positions, *positions.more))


def test_intervals_without_width_are_explained(rows: pd.DataFrame) -> None:
    """Fault: 1.00 [1.00, 1.00] of 32 contexts read like certainty."""
    words = "An interval has no width where all contexts have the same value"
    right = rows["value_sum"].mask((rows["scheme"] == "alibi") & (rows["metric"] == "exact_match"), 1.0)
    name = "key_value-synthetic_records-exact_match"
    rows = rows[rows["scheme"].isin(["alibi", "t5"])]
    for some, expected in ((rows[rows["scheme"] == "t5"], False), (rows.assign(value_sum=right), True)):
        table = next(one for one in build_tables(some) if one.name == name)
        assert (words in table.caption) == expected


def test_one_scheme_is_neither_best_nor_trained_like_others(rows: pd.DataFrame) -> None:
    """Fault: "Best in bold" and "all schemes are trained on the same data" beside a single row."""
    some = rows[(rows["scheme"] == "alibi")]
    for table in build_tables(some):
        assert BEST_IN_BOLD not in table.caption
        assert "All schemes" not in table.caption


def test_no_model_is_the_best_on_key_tokens_of_its_own() -> None:
    """Fault: the table of LongPPL showed a best in bold, although each value is of other tokens."""
    rows = synthetic_rows(seeds=3, documents=30, contexts=8, schemes=("rope", "alibi"))
    rows = rows[(rows["metric"] == "nll") & (rows["protocol"] == "fixed_targets")]
    rows = rows.assign(task="longppl", protocol="key_tokens", metric="key_token_nll")
    table = next(one for one in build_tables(rows) if one.name == "longppl-key_tokens-longppl")
    assert "bold" not in table.caption
    assert not any(cell.best for line in table.body for cell in line)


def test_key_tokens_are_counted_by_seed() -> None:
    """Fault: "23 scored tokens in 27 documents": tokens were those of a seed, documents those of all seeds."""
    rows = synthetic_rows(seeds=3, documents=30, contexts=8, schemes=("rope",))
    rows = rows[(rows["protocol"] == "fixed_targets") & (rows["extension"] == "none")]
    tenth = rows["doc_id"].str[-2:].astype(int) // 10 == rows["train_seed"]
    table = next(one for one in build_tables(rows[tenth]) if "bits_per_byte" in one.name)
    assert "over 160 scored tokens in 10 documents per length; 3 training seeds" in table.caption


def test_only_numbers_of_key_tokens_are_of_different_tokens() -> None:
    """Fault: the caption of bits per byte said that models are scored on different tokens; only key tokens differ."""
    rows = synthetic_rows(seeds=1, documents=10, contexts=2, schemes=("rope", "alibi"))
    rows = rows[rows["protocol"] == "fixed_targets"].assign(task="longppl", protocol="key_tokens")
    key = rows[rows["metric"] == "nll"].assign(metric="key_token_nll")
    rows = pd.concat([rows, key])
    found = {one.name: one.caption for one in build_tables(rows)}
    said = {name for name, words in found.items() if OWN_TOKENS in words}
    assert said == {"longppl-key_tokens-longppl"}
    assert "longppl-key_tokens-bits_per_byte" in found

    both = captions.caption(
        [(rows, aggregate(rows, METRICS[name]), METRICS[name]) for name in ("perplexity", "longppl")]
    )
    assert both.count("Each model has its own") == 1  # fault: figures of both described the protocol twice


def test_equal_seeds_are_no_equal_contexts(rows_of_three_seeds: pd.DataFrame) -> None:
    """Fault: with three equal seeds and different contexts, the caption said "all contexts have the same value"."""
    rows = rows_of_three_seeds[
        (rows_of_three_seeds["task"] == "key_value") & ~rows_of_three_seeds["value_sum"].isna()
    ]
    value = rows["doc_id"].map({"ctx000": 0.0, "ctx001": 0.5, "ctx002": 1.0, "ctx003": 0.0}).astype(float)
    rows = rows.assign(value_sum=value * rows["n"], status="ok")
    found = {one.name: one.caption for one in build_tables(rows[rows["scheme"] == "alibi"])}
    caption = found["key_value-synthetic_records-exact_match"]
    assert "An interval has no width where all seeds have the same value, and" in caption


def test_a_gate_of_several_tasks_names_them(rows_of_three_seeds: pd.DataFrame) -> None:
    """Fault: two seeds failed one task and the third failed another, and the caption said "all seeds"."""
    records = rows_of_three_seeds[rows_of_three_seeds["task"] == "key_value"]
    passkey = records.assign(task="passkey", protocol="passkey")
    panels = []
    for rows, lost in ((records, {0, 1}), (passkey, {2}), (passkey.assign(variant="query_aware"), set())):
        failed = (rows["scheme"] == "alibi") & rows["train_seed"].isin(lost)
        panels.append(rows.assign(status=rows["status"].mask(failed, "not_learned")))
    one, other, passed = panels
    assert gate([one], False).endswith("Left out at longer contexts: alibi (2 of 3 seeds).")
    assert gate([one, one.assign(task="mqar")], False).endswith(
        "Left out at longer contexts: alibi (2 of 3 seeds)."
    )
    both = "Left out at longer contexts: key value: alibi (2 of 3 seeds); passkey: alibi (1 of 3 seeds)."
    assert gate([one, other], False).endswith(both)
    assert gate([other, passed], False).endswith(
        "Left out at longer contexts: passkey (question after the context): alibi (1 of 3 seeds)."
    )
