"""Figures with several panels, density of positions, and gain of context."""

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from synthetic_rows import ORDER
from test_figure_kinds import CONFIGS, texts

from posbench.errors import ConfigError
from posbench.report.figures import context_gain, density, draw_figure, house_style, panels
from posbench.report.figures.canvas import band
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.context_gain import context_gains
from posbench.report.tables.layout import build_tables
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.summary import aggregate

LOSS = {"task": "perplexity", "metric": "bits_per_byte", "protocol": "fixed_targets", "title": "loss"}
FOUND = {"task": "key_value", "metric": "exact_match"}
FACTORS = {"none": 1, "pi": 2, "ntk": 4}


@pytest.fixture(autouse=True)
def style():
    with house_style():
        yield


def test_gain_is_a_paired_difference(rows):
    fixed = rows[rows["protocol"] == "fixed_targets"]
    metric = get_metric("bits_per_byte")
    found = context_gains(fixed, metric).set_index(["scheme", "extension", "eval_len"])
    plain = aggregate(fixed, metric).set_index(["scheme", "extension", "eval_len"])
    for scheme, length in [("alibi", 1024), ("rope", 128), ("rope", 1024)]:
        expected = plain.loc[scheme, "none", 64]["estimate"] - plain.loc[scheme, "none", length]["estimate"]
        line = found.loc[scheme, "none", length]
        assert line["estimate"] == pytest.approx(expected)
        assert line["low"] < line["estimate"] < line["high"]
        # Paired intervals are narrower.
        wide = plain.loc[scheme, "none", length]
        assert line["high"] - line["low"] < wide["high"] - wide["low"]
    assert found.xs(64, level="eval_len")["estimate"].dropna().eq(0).all()
    assert np.isnan(found.loc["learned", "none", 128]["estimate"])


def test_gain_is_paired_by_seed(rows_of_three_seeds):
    fixed = rows_of_three_seeds[rows_of_three_seeds["protocol"] == "fixed_targets"]
    found = context_gains(fixed, get_metric("bits_per_byte"))
    line = found[(found["scheme"] == "alibi") & (found["eval_len"] == 128)].iloc[0]
    assert line["interval_method"] == "95% two-level t over 3 seeds"


def test_table_and_figure_of_the_gain(rows):
    fixed = rows[rows["protocol"] == "fixed_targets"]
    (table,) = [one for one in build_tables(fixed, ORDER) if one.name.endswith("-context_gain")]
    assert [cell.split()[0] for cell in table.header[1:]] == ["128", "256", "512", "1024"]
    assert len(table.body) == len(fixed[["scheme", "extension"]].drop_duplicates())
    figure, shown = context_gain.draw(FigureData.of(rows, ORDER), scheme="rope")
    # Fault: the caption did not say that the axis is logarithmic in part.
    assert "The axis is linear from -0.1 to 0.1 and logarithmic beyond." in texts(figure)
    assert len(figure.axes) == 2
    low, high = figure.axes[0].get_ylim()
    assert low < shown["estimate"].min() < 0 < high
    assert shown["estimate"].min() < -1
    assert not shown.duplicated(["scheme", "extension", "eval_len"]).any()


def test_panels(rows):
    figure, shown = panels.draw(FigureData.of(rows, ORDER), title="Two", panels=[LOSS, FOUND])
    assert [axes.get_ylabel() for axes in figure.axes] == ["bits per byte", "retrieval accuracy"]
    assert set(shown["metric"]) == {"bits_per_byte", "exact_match"}
    one = panels.draw(FigureData.of(rows, ORDER), title="Three", panels=[LOSS, FOUND, LOSS], scheme="rope")
    assert set(one[1]["scheme"]) == {"rope"}
    assert [axes.axison for axes in one[0].axes] == [True, True, True, False]


def test_panels_without_rows_are_left_out(rows):
    """A figure of two tasks was once left out where only one of the two had been evaluated."""
    data, absent = (
        FigureData.of(rows, ORDER),
        {"task": "algorithmic", "metric": "symbol_accuracy"},
    )
    figure, shown = panels.draw(data, title="One", panels=[absent, LOSS])
    assert [axes.get_ylabel() for axes in figure.axes] == ["bits per byte"]
    assert set(shown["metric"]) == {"bits_per_byte"}
    with pytest.raises(MissingRowsError, match="no rows of task algorithmic"):
        panels.draw(data, title="None", panels=[absent])


def test_a_panel_of_one_seed_does_not_decide_for_the_others(rows_of_three_seeds):
    """Fault: the seeds of the first panel decided how the caption describes the bands of all panels."""
    rows = rows_of_three_seeds
    rows = rows[(rows["task"] != "perplexity") | (rows["train_seed"] == 0)]
    figure, _ = panels.draw(FigureData.of(rows, ORDER), title="Two", panels=[LOSS, FOUND])
    caption = texts(figure)
    assert "1 training seed; intervals, in the csv alone: 95% confidence over documents" in caption
    assert "3 training seeds; bands: 95% confidence over 3 seeds" in caption


def test_multiples_of_odd_lengths_are_short(rows):
    """The length 302 after a training at 102 was once labelled 2.96078×."""
    odd = rows.assign(train_len=rows["train_len"].replace(64, 51))
    figure, _ = panels.draw(FigureData.of(odd, ORDER), title="One", panels=[LOSS])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert all(len(label.partition("\n")[2]) <= len("10.04×") for label in labels), labels


def test_best_factors_are_marked(rows):
    figure, shown = density.draw(
        FigureData.of(rows, ORDER),
        title="Density",
        scheme="rope",
        factors=FACTORS,
        panels=[LOSS, FOUND],
    )
    assert len(figure.axes) == 2
    assert set(shown["factor"]) == {1, 2, 4}
    loss = shown[shown["metric"] == "bits_per_byte"]
    for _, line in loss.groupby("eval_len"):
        assert (line["estimate"] == line["estimate"].min()).equals(line["best"])
    far = shown[(shown["metric"] == "exact_match") & (shown["eval_len"] == 256)]
    assert far.loc[far["best"], "extension"].tolist() == [far.loc[far["estimate"].idxmax(), "extension"]]


def test_density_without_its_extensions_is_left_out(rows):
    """Fault: a traceback at the end of the sweep."""
    settings = {"title": "Density", "scheme": "rope", "panels": [LOSS]}
    with pytest.raises(MissingRowsError, match="with any of the extensions tuned_1, tuned_2"):
        density.draw(FigureData.of(rows, ORDER), factors={"tuned_1": 1, "tuned_2": 2}, **settings)


def test_factors_without_values_are_named_beside_the_stars(rows):
    """Fault: stars at k = 2 compared two of four factors, as the others missed the gate; the caption did not say so.

    The line of a baseline was its mean over lengths, while the caption gave a range alone.
    """
    settings = {"title": "Density", "scheme": "rope", "factors": FACTORS, "panels": [LOSS, FOUND]}
    figure, _ = density.draw(FigureData.of(rows, ORDER), **settings)
    assert "Stars mark the best k of each context length." in texts(figure)
    missed = (rows["task"] == "key_value") & (rows["extension"] == "ntk")
    gated = rows.assign(status=rows["status"].mask(missed & (rows["status"] == "ok"), "not_learned"))
    figure, _ = density.draw(FigureData.of(gated, ORDER), **settings)
    assert "among those with a value there; retrieval accuracy lacks values for k = 4." in texts(figure)
    labels = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert {"chance", "random value of the context (mean of all lengths)"} <= set(labels)


def test_invalid_settings_raise(rows):
    data = FigureData.of(rows, ORDER)
    with pytest.raises(ConfigError, match="unknown setting of a panel 'tusk'"):
        panels.draw(data, title="", panels=[{"tusk": "perplexity"}])
    with pytest.raises(ConfigError, match="a task and a metric"):
        panels.draw(data, title="", panels=[{"task": "perplexity"}])
    with pytest.raises(ConfigError, match="two extensions or more"):
        density.draw(data, title="", scheme="rope", factors={"none": 1}, panels=[LOSS])


def test_panels_of_a_figure_have_different_titles():
    """Fault: two panels were titled "copy", one of whole answers and one of symbols."""
    for path in CONFIGS.glob("*.yaml"):
        titles = [panel.get("title") for panel in yaml.safe_load(path.read_text()).get("panels", ())]
        assert len(set(titles)) == len(titles), path


@pytest.mark.parametrize("name", ["algorithmic", "repetition", "longppl", "density"])
def test_every_config_draws(rows, tmp_path, name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    paths = draw_figure(config, synthetic_panels(rows, config), tmp_path, ORDER)
    assert len(pd.read_csv(paths[2])) >= len(config["panels"])


def synthetic_panels(rows, config):
    """Losses of rope and its extensions as rows of every panel, with the names that the figure expects."""
    part = rows[
        (rows["protocol"] == "fixed_targets") & (rows["scheme"] == "rope") & (rows["metric"] == "nll")
    ]
    part = part[part["extension"].isin(["none"] if config.get("extension") else FACTORS)]
    names = list(config.get("factors", FACTORS))
    part = part.assign(extension=part["extension"].map(dict(zip(FACTORS, names, strict=False))))
    frames = []
    for panel in config["panels"]:
        what = get_metric(panel["metric"], panel["task"])
        for metric in {what.row_metric, what.normalize_by} - {""}:
            columns = {"task": panel["task"], "variant": panel.get("variant", ""), "metric": metric}
            frames.append(part.assign(**columns, value_sum=0.95 * part["n"]))
    return pd.concat(frames, ignore_index=True).drop_duplicates()


def test_a_band_of_one_point_is_a_line():
    """Fault: a series of one length had no interval in its figure, as a band of one point has no area."""
    axes = Figure().subplots()
    shown = pd.DataFrame({"low": [0.2], "high": [0.9], "interval_method": "95% two-level t over 3 seeds"})
    band(axes, [64], shown, "k")
    (line,) = axes.collections
    assert line.get_segments()[0].tolist() == [[64, 0.2], [64, 0.9]]
