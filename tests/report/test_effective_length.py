"""Effective length against a search along curves drawn by hand, and its values at the ends of what is measured."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_rows import ORDER, TRAIN_LEN, completed
from test_figure_kinds import CONFIGS, texts

from posbench.errors import ConfigError
from posbench.report.figures import draw_figure, effective_length, house_style, ranking
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.effective_length import (
    Threshold,
    effective_length_table,
    effective_lengths,
)
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.report.tables.metrics import METRICS, get_metric, nats_per_token
from posbench.results import gate

LOSS, EXACT = nats_per_token(METRICS["bits_per_byte"]), get_metric("exact_match")
LENGTHS = (64, 128, 256, 512)


def made(
    curves: dict[str, tuple], task: str = "perplexity", seeds: int = 1, spread: float = 0.0
) -> pd.DataFrame:
    """Rows of schemes with the given loss per token, or accuracy, at LENGTHS; None is undefined."""
    generator, lines = np.random.default_rng(0), []
    loss = task == "perplexity"
    for scheme, values in curves.items():
        for seed in range(seeds):
            shift_D = generator.normal(0, spread, 16)
            for length, value in zip(LENGTHS, values, strict=False):
                common = {
                    "scheme": scheme,
                    "extension": "none",
                    "model_id": f"{scheme}{seed}",
                    "train_seed": seed,
                }
                common |= {
                    "eval_len": length,
                    "task": task,
                    "cell_id": "c",
                    "model_size": "tiny",
                    "example": 0,
                }
                common |= {"protocol": "fixed_targets" if loss else "synthetic_records", "variant": ""}
                common |= {"n_params": 1, "train_len": TRAIN_LEN, "train_tokens": 1, "corpus": "sources"}
                common |= {"eval_seed": 0, "dtype": "float32", "kernel": "sdpa", "unit": ""}
                if value is None:
                    missing = {"metric": "nll" if loss else "exact_match", "value_sum": np.nan, "n": 0}
                    lines.append(common | missing | {"doc_id": "", "status": "undefined"})
                    continue
                for document, shift in enumerate(shift_D):
                    at = common | {"doc_id": f"d{document}", "status": "ok", "n": 10}
                    noise = float(generator.normal(0, spread / 4)) if spread and length > TRAIN_LEN else 0.0
                    if loss:
                        lines.append(at | {"metric": "nll", "value_sum": 10 * (value + shift + noise)})
                        lines.append(at | {"metric": "bytes", "value_sum": 10.0})
                    else:
                        lines.append(at | {"metric": "exact_match", "value_sum": 10 * (value + noise)})
    return gate.apply_gate(completed(pd.DataFrame(lines)))


def searched(values: tuple, passes) -> float:
    """The first length, of a fine grid, at which the curve interpolated over log length fails; infinite without one."""
    grid = np.geomspace(LENGTHS[0], LENGTHS[-1], 200_001)
    curve = np.interp(np.log(grid), np.log(LENGTHS), values)
    failing = np.nonzero(~passes(curve))[0]
    return float(grid[failing[0]]) if len(failing) else math.inf


CURVES = {
    "alibi": (2.0, 1.9, 1.95, 2.05),  # never exceeds
    "rope": (2.0, 2.04, 2.5, 3.0),
    "t5": (2.0, 2.6, 2.0, 2.0),  # recovers, which does not count
    "nope": (2.0, 2.05, 2.08, 2.3),
}


@pytest.mark.parametrize("nats", [0.05, 0.1, 0.4])
def test_loss_crosses_where_a_search_finds_it(nats):
    found = effective_lengths(made(CURVES), LOSS, Threshold(nats=nats)).set_index("scheme")["estimate"]
    for scheme, values in CURVES.items():
        expected = searched(values, lambda curve: curve <= 2.0 + nats + 1e-12)
        assert found[scheme] == pytest.approx(expected, rel=1e-3), scheme


@pytest.mark.parametrize("share", [0.85, 0.5])
def test_scores_cross_where_a_search_finds_it(share):
    curves = {"alibi": (1.0, 0.99, 0.9, 0.4), "rope": (0.98, 0.5, 0.3, 0.2), "t5": (0.95, 0.97, 0.96, 0.9)}
    found = effective_lengths(made(curves, "key_value"), EXACT, Threshold(share)).set_index("scheme")[
        "estimate"
    ]
    for scheme, values in curves.items():
        expected = searched(values, lambda curve, base=values[0]: curve >= share * base - 1e-12)
        assert found[scheme] == pytest.approx(expected, rel=1e-3), scheme


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_are_the_crossings_of_the_ends_of_the_paired_difference(seeds):
    lines = effective_lengths(made(CURVES, seeds=seeds, spread=0.05), LOSS, Threshold()).set_index("scheme")
    rope, alibi, nope = (lines.loc[name] for name in ("rope", "alibi", "nope"))
    assert rope["low"] < rope["estimate"] < rope["high"] < 256
    assert rope["low"] > 128
    assert nope["low"] < nope["estimate"] < nope["high"]
    assert math.isinf(alibi["estimate"])
    assert ("seeds" in rope["interval_method"]) == (seeds == 3)


def test_the_last_length_with_a_number_if_a_longer_one_is_undefined():
    lines = effective_lengths(
        made({"learned": (2.0, None, None, None), "rope": (2.0, 2.05, None)}), LOSS, Threshold()
    )
    lines = lines.set_index("scheme")
    assert lines["estimate"].to_dict() == {"learned": 64.0, "rope": 128.0}
    assert set(lines["status"]) == {"undefined"}


def test_models_that_have_not_learned_the_task_have_none():
    lines = effective_lengths(
        made({"nope": (0.5, 0.5, 0.5), "rope": (1.0, 1.0, 1.0)}, "key_value"), EXACT, Threshold(0.5)
    )
    lines = lines.set_index("scheme")
    assert math.isnan(lines.loc["nope", "estimate"])
    assert lines.loc["nope", "status"] == "not_learned"
    assert math.isinf(lines.loc["rope", "estimate"])


def test_an_extension_below_the_gate_has_none():
    """Fault: an extension at chance, .14 and then .07, kept half of its score, and its effective length was "> 256"."""
    rows = made({"rope": (1.0, 1.0, 1.0), "other": (0.14, 0.1, 0.08)}, "key_value")
    whose = {"scheme": "rope", "extension": "drope", "model_id": "rope0"}
    extended = rows["scheme"] == "other"
    rows = rows.assign(status="ok", **{key: rows[key].mask(extended, value) for key, value in whose.items()})
    lines = effective_lengths(rows, EXACT, Threshold(0.5)).set_index("extension")
    assert math.isnan(lines.loc["drope", "estimate"])
    assert lines.loc["drope", "status"] == "not_learned"
    assert math.isinf(lines.loc["none", "estimate"])


def test_the_table_writes_what_is_beyond_the_longest_length():
    found = {table.name: to_markdown(table) for table in build_tables(made(CURVES), ORDER)}
    text = found["perplexity-fixed_targets-bits_per_byte-effective_length"]
    assert "| scheme | loss within 0.1 nats |" in text
    assert "| alibi | > 512 |" in text
    assert "| t5 | 72" in text
    retrieval = made({"rope": (1.0, 0.9, 0.6)}, "key_value")
    text = to_markdown(effective_length_table(retrieval, EXACT, ORDER, "name"))
    assert "| scheme | 85% of score at 1× | 50% of score at 1× |" in text
    assert "> 256" in text
    only_home = retrieval[retrieval["eval_len"] == TRAIN_LEN]
    assert effective_length_table(only_home, EXACT, ORDER, "name") is None


def test_the_figure_and_its_mistakes(tmp_path):
    rows = pd.concat([made(CURVES), made(dict.fromkeys(CURVES, (1.0, 0.9, 0.6)), "key_value")])
    settings = yaml.safe_load((CONFIGS / "effective_length.yaml").read_text())
    paths = draw_figure(settings, rows, tmp_path, ORDER)
    numbers = pd.read_csv(paths[2])
    assert set(numbers["threshold"]) == {"loss within 0.1 nats", "85% of score at 1×", "50% of score at 1×"}
    assert len(numbers) == 3 * len(CURVES)
    data = FigureData.of(rows, ORDER)
    with house_style():
        figure, _ = effective_length.draw(data)
        assert "beyond the longest measured length" in texts(figure)
        with pytest.raises(ConfigError, match="nats 0: give a number above 0"):
            effective_length.draw(data, nats=0)
        with pytest.raises(ConfigError, match=r"share 1\.5: give numbers between 0 and 1"):
            effective_length.draw(data, shares=[1.5])
        longer = FigureData.of(rows[rows["eval_len"] > TRAIN_LEN], ORDER)
        with pytest.raises(MissingRowsError, match="evaluate it too"):
            effective_length.draw(longer)


def test_the_ranking_has_a_column_of_effective_lengths(tmp_path):
    """The ranking showed values at a few lengths, which do not say how far a scheme reaches."""
    rows = pd.concat([made(CURVES), made(dict.fromkeys(CURVES, (1.0, 0.9, 0.6)), "key_value")])
    settings = yaml.safe_load((CONFIGS / "ranking.yaml").read_text())
    for column, shares in ((True, 3), (False, 0)):
        paths = draw_figure(settings | {"effective_length": column}, rows, tmp_path, ORDER)
        numbers = pd.read_csv(paths[2])
        found = numbers[numbers["metric"] == "effective_length"]
        assert len(found) == shares * len(CURVES)
    with house_style():
        figure, _ = ranking.draw(FigureData.of(rows, ORDER))
        assert [axes.get_xlabel() for axes in figure.axes][2] == "effective length (tokens)"
        # Fault: the panels had no titles, and the caption explained "> N", which only the table has.
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles == ["Bits per byte", "Retrieval accuracy", "Effective length"]
        assert "> N" not in texts(figure)


def test_lengths_that_end_for_another_reason_are_explained(rows):
    """Fault: the figure did not distinguish an undefined scheme from one that exceeds the threshold."""
    with house_style():
        figure, _ = effective_length.draw(FigureData.of(rows, ORDER))
    assert "Undefined beyond the length that the scheme was built for (learned)." in texts(figure)


def test_an_interval_ends_where_lengths_without_one_begin():
    """Fault: a length without an interval counted as a crossing, so that "> 512" had the interval [128, 128]."""
    rows = made({"rope": (1.0, 1.0, 1.0, 1.0)}, seeds=3, spread=0.01)
    few = (rows["train_seed"] == 0) & rows["doc_id"].isin(["d0", "d1"])
    (line,) = effective_lengths(rows[(rows["eval_len"] < 256) | few], LOSS, Threshold()).itertuples()
    assert math.isinf(line.estimate)
    assert math.isnan(line.low)
    assert math.isnan(line.high)


def test_a_ranking_without_its_lengths_says_so():
    """Fault: a traceback where none of the lengths of the ranking was evaluated, in place of a figure left out."""
    rows = pd.concat([made({"rope": (1.0,) * 4}), made({"rope": (1.0,) * 4}, task="key_value")])
    with (
        house_style(),
        pytest.raises(MissingRowsError, match=r"^no numbers of task perplexity at 3, 5 times"),
    ):
        ranking.draw(FigureData.of(rows, ORDER), length_multiples=[3, 5])


def test_a_seed_below_the_gate_leaves_the_others():
    """Fault: one of three seeds below the gate left the scheme without an effective length, beside its other numbers."""
    rows = made({"rope": (1.0, 0.9, 0.4)}, "key_value", seeds=3, spread=0.01)
    failed = rows["train_seed"] == 2
    rows = gate.apply_gate(rows.assign(status="ok", value_sum=rows["value_sum"].mask(failed, 5.0)))
    (line,) = effective_lengths(rows, EXACT, Threshold(0.5)).itertuples()
    assert 128 < line.estimate < 256
    assert (line.seeds, line.seeds_left_out, line.status) == (2, 1, "not_learned")
    text = to_markdown(effective_length_table(rows, EXACT, ORDER, "name"))
    assert "1 of 3 seeds has not learned the task and is left out." in text


def test_a_note_names_the_left_out_seed_and_the_end():
    """Fault: a length that ends where the scheme is undefined looked like a measured one beside a seed that was left out."""
    rows = made({"learned": (1.0, 0.9, 0.4)}, "key_value", seeds=3, spread=0.01)
    undefined = rows["eval_len"] > rows["train_len"]
    values = rows["value_sum"].mask(rows["train_seed"] == 2, 5.0).mask(undefined)
    rows = gate.apply_gate(rows.assign(status=np.where(undefined, "undefined", "ok"), value_sum=values))
    text = to_markdown(effective_length_table(rows, EXACT, ORDER, "name"))
    assert "1 of 3 seeds has not learned the task and is left out. Undefined" in text


def test_ranges_of_lengths_are_not_interpolated():
    """Fault: length generalization, whose scores are of 51 to 100 symbols and so on, had a length between two of them."""
    rows = made({"rope": (1.0, 0.9, 0.4)}, "key_value").assign(task="length_generalization")
    assert not [one.name for one in build_tables(rows) if "effective_length" in one.name]


def test_the_caption_describes_the_intervals_of_the_lengths():
    """Fault: the caption described the intervals of the scores (3 seeds), not of the effective lengths (1 seed)."""
    rows = made({"rope": (1.0, 0.9, 0.4)}, "key_value", seeds=3, spread=0.01)
    failed = rows["train_seed"] > 0
    rows = gate.apply_gate(rows.assign(status="ok", value_sum=rows["value_sum"].mask(failed, 5.0)))
    table = effective_length_table(rows, EXACT, ORDER, "name")
    assert set(table.numbers["seeds"]) == {1}
    assert (
        "; 1 training seed; intervals of the effective length: 95% confidence over contexts" in table.caption
    )


def test_seeds_are_those_of_all_lengths_up_to_the_effective_one():
    """Fault: the number of seeds was that of the training length; the longer lengths had one seed less."""
    rows = made({"rope": (2.0, 2.05, 2.5, 3.0)}, seeds=3, spread=0.01)
    for length, seeds in ((512, 3), (256, 2)):
        lost = (rows["train_seed"] == 2) & (rows["eval_len"] == length)
        some = rows.assign(
            status=rows["status"].mask(lost, "out_of_memory"), value_sum=rows["value_sum"].mask(lost)
        )
        (line,) = effective_lengths(some, LOSS, Threshold()).itertuples()
        assert 128 < line.estimate < 256
        assert (line.seeds, line.seeds_left_out) == (seeds, 3 - seeds)
    text = to_markdown(effective_length_table(some, METRICS["bits_per_byte"], ORDER, "name"))
    assert "1 of 3 seeds left out. Out of memory." in text
    unmeasured = rows[(rows["train_seed"] < 2) | (rows["eval_len"] != 256)]
    text = to_markdown(effective_length_table(unmeasured, METRICS["bits_per_byte"], ORDER, "name"))
    assert "1 of 3 seeds left out. No number: rows of this metric" in text


def test_an_interval_has_two_ends():
    """Fault: an interval whose upper end is not known was printed as "[82]"."""
    rows = made({"rope": (2.0, 2.0995, 2.12, 2.5)}, seeds=3, spread=0.02)
    few = (rows["train_seed"] == 0) & rows["doc_id"].isin(["d0", "d1"])
    table = effective_length_table(
        rows[(rows["eval_len"] < 256) | few], METRICS["bits_per_byte"], ORDER, "name"
    )
    (cell,) = table.body[0][1:]
    assert cell.text.endswith(", ?]")
    assert "?: this end of the interval is unknown" in table.caption
