"""The figure of losses beyond the training length against the length of the training."""

import pandas as pd
import pytest
from test_figure_kinds import ORDER, config, texts

from posbench.report.figures import convergence, draw_figure, house_style
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.context_gain import context_gain_metric
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.summary import aggregate


@pytest.fixture(autouse=True)
def style():
    with house_style():
        yield


def trained_longer(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of two trainings, the longer of which doubles all losses."""
    columns = {
        name: [f"{value}-long" for value in rows[name].astype(str)] for name in ("model_id", "cell_id")
    }
    nats = rows["value_sum"].mask(rows["metric"] == "nll", rows["value_sum"] * 2)
    longer = rows.assign(**columns, value_sum=nats, train_tokens=rows["train_tokens"] * 4)
    return pd.concat([rows, longer], ignore_index=True)


def test_points_are_paired_differences_by_training_tokens(rows):
    both = trained_longer(rows)
    figure, shown = convergence.draw(FigureData.of(both, ORDER))
    fixed = rows[(rows["protocol"] == "fixed_targets") & (rows["extension"] == "none")]
    plain = aggregate(fixed, get_metric("bits_per_byte")).set_index(["scheme", "eval_len"])["estimate"]
    found = shown[shown["panel"] == "difference"].set_index(["scheme", "train_tokens"])["estimate"]
    for scheme in ("rope", "alibi"):
        expected = plain[scheme, 512] - plain[scheme, 64]
        short, longer = found[scheme].sort_index()
        assert short == pytest.approx(expected)
        assert longer == pytest.approx(2 * expected)
    assert "0.92M to 3.69M tokens" in texts(figure)
    bounds = shown.dropna(subset="low")
    assert bounds["low"].le(bounds["high"]).all()


def test_the_config_draws_and_one_training_is_not_enough(rows, tmp_path):
    assert len(draw_figure(config("convergence"), trained_longer(rows), tmp_path, ORDER)) == 3
    with pytest.raises(MissingRowsError, match=r"^1 numbers of training tokens: train several"):
        draw_figure(config("convergence"), rows, tmp_path, ORDER)
    with pytest.raises(MissingRowsError, match=r"^no numbers at 32 times the training length"):
        draw_figure(config("convergence", length_multiple=32), trained_longer(rows), tmp_path, ORDER)


def test_the_caption_counts_the_seeds_of_all_trainings(rows):
    """Fault: the caption counted the seeds of the longest training: one, beside bands over three."""
    three = pd.concat([rows.assign(train_seed=seed) for seed in range(3)], ignore_index=True)
    both = trained_longer(three)
    longer = both["train_tokens"] > both["train_tokens"].min()
    figure, _ = convergence.draw(FigureData.of(both[~longer | (both["train_seed"] == 0)], ORDER))
    assert "1 to 3 training seeds" in texts(figure)


def test_a_training_without_numbers_is_named(rows):
    """Fault: one training that diverged left out the whole figure."""
    both = trained_longer(rows)
    last = both.assign(train_tokens=both["train_tokens"] * 16)
    for name in ("model_id", "cell_id"):
        last[name] = [f"{value}-last" for value in last[name].astype(str)]
    diverged = last.assign(value_sum=float("nan"), status="diverged")
    figure, shown = convergence.draw(FigureData.of(pd.concat([both, diverged]), ORDER))
    assert "No numbers after 14.7M, 59M tokens." in texts(figure)
    assert shown["train_tokens"].nunique() == 2


def test_differences_of_perplexities_are_in_nats(rows):
    """Fault: the axis of differences in nats had the label "perplexity per token"."""
    figure, _ = convergence.draw(FigureData.of(trained_longer(rows), ORDER), metric="perplexity")
    assert "loss at 8× minus loss at 1× (loss (nats per token))" in figure.axes[0].get_ylabel()
    assert figure.axes[1].get_ylabel().startswith("perplexity per token")
    assert context_gain_metric(get_metric("perplexity")).label == "gain of context (loss (nats per token))"
