"""Figures: csv files, captions, stable line styles, and errors for invalid settings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_rows import ORDER

import posbench
from posbench.errors import ConfigError, IncompatibleError
from posbench.report.figures import (
    context_growth,
    draw_figure,
    house_style,
    loss_by_position,
    retrieval_by_position,
)
from posbench.report.figures.canvas import spread
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.figures.line_styles import COLOURS, SCHEMES, UNDASHED, assign_line_styles

CONFIGS = Path(posbench.__file__).parents[1] / "configs" / "figure"
KINDS = [
    "fixed_targets",
    "non_overlapping",
    "loss_by_position",
    "retrieval_by_position",
    "retrieval_heat_map",
    "extensions",
]


@pytest.fixture(autouse=True)
def style():
    with house_style():
        yield


def config(name: str, **changes) -> dict:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | changes


def texts(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("name", KINDS)
def test_every_config_draws(rows, tmp_path, name):
    paths = draw_figure(config(name), rows, tmp_path, ORDER)
    assert [path.suffix for path in paths] == [".png", ".pdf", ".csv"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert len(pd.read_csv(paths[2])) > 5
    for path in paths[:2]:
        assert b"CreationDate" not in path.read_bytes()
        assert b"Matplotlib" not in path.read_bytes()


def test_matplotlib_settings_of_the_user_have_no_effect(rows, tmp_path):
    import matplotlib

    first = draw_figure(config("fixed_targets"), rows, tmp_path / "a", ORDER)
    with matplotlib.rc_context(
        {"lines.linewidth": 9, "axes.facecolor": "pink", "savefig.dpi": 30, "font.size": 30}
    ):
        second = draw_figure(config("fixed_targets"), rows, tmp_path / "b", ORDER)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_bands_require_several_seeds(rows, rows_of_three_seeds):
    for given, several in ((rows, False), (rows_of_three_seeds, True)):
        figure, shown = context_growth.draw(FigureData.of(given, ORDER))
        assert ("bands: 95% confidence over 3 seeds and documents" in texts(figure)) == several
        assert (
            "intervals, in the csv alone: 95% confidence over documents, for these" in texts(figure)
        ) != several
        assert shown["low"].notna().any()
        bands = [
            path for band in figure.axes[0].collections for path in band.get_paths() if len(path.vertices)
        ]
        assert bool(bands) == several


def test_caption_names_protocol_counts_and_models(rows):
    figure, _ = context_growth.draw(FigureData.of(rows, ORDER))
    caption = texts(figure)
    for fact in (
        "Fixed targets",
        "last 16 tokens",
        "Bits per byte",
        "16 documents",
        "1 training seed",
        "0.40M",
    ):
        assert fact in caption
    for fact in ("Python source code", "sequences of 64", "(learned)", "Cross: "):
        assert fact in caption
    assert "training length" in labels(figure)


def test_lines_are_labelled_at_their_ends(rows):
    figure, shown = context_growth.draw(FigureData.of(rows, ORDER))
    rope = shown[(shown["scheme"] == "rope") & (shown["eval_len"] == 1024)]["estimate"].item()
    assert f"rope  {rope:.2f}" in labels(figure)
    assert "learned ×" in labels(figure)


def test_the_label_of_a_line_that_ends_at_once_is_beside_its_marker(rows):
    """Fault: the label of a long name covered the marker of its only point."""
    learned = rows["scheme"] == "learned"
    rows = rows.assign(scheme=rows["scheme"].astype(str).mask(learned, "learned_with_a_long_name"))
    rows = rows[~learned | (rows["eval_len"] == rows["train_len"]) | (rows["status"] != "ok")]
    figure, _ = context_growth.draw(FigureData.of(rows, ORDER))
    figure.canvas.draw()
    (axes,) = figure.axes
    (label,) = (text for text in axes.texts if text.get_text() == "learned_with_a_long_name ×")
    marker = axes.transData.transform((64, 1))[0]
    assert label.get_window_extent().x0 >= axes.get_window_extent().x0
    assert Text.get_window_extent(label).x1 < marker - 5


def test_no_two_labels_overlap(rows):
    for kind in (context_growth, loss_by_position):
        figure, _ = kind.draw(FigureData.of(rows, ORDER))
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        boxes += [text.get_window_extent() for text in figure.texts]
        for place, box in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
            assert not any(box.overlaps(other) for other in boxes[:place])


def test_spread_moves_labels_only_as_far_as_needed():
    assert spread([0, 100, 200], 10, 0, 300) == [0, 100, 200]
    assert spread([100, 100], 10, 0, 300) == pytest.approx([95, 105])
    crowded = spread([290, 295, 299], 10, 0, 300)
    assert np.diff(crowded) == pytest.approx([10, 10])
    assert crowded[-1] <= 300


def test_axis_is_logarithmic_if_one_scheme_diverges(rows):
    diverging = rows.assign(
        value_sum=rows["value_sum"].mask(
            (rows["scheme"] == "sinusoidal") & (rows["metric"] == "nll"), rows["value_sum"] * 20
        )
    )
    figure, _ = context_growth.draw(FigureData.of(diverging, ORDER))
    assert figure.axes[0].get_yscale() == "log"
    # Fault: the axis did not say that it is logarithmic.
    assert figure.axes[0].get_ylabel() == "bits per byte (log scale)"
    assert context_growth.draw(FigureData.of(rows, ORDER))[0].axes[0].get_yscale() == "linear"


def test_line_styles_are_the_same_in_every_figure(rows):
    line_styles = FigureData.of(rows, ORDER).line_styles
    plain = [style for (_, extension), style in line_styles.items() if extension == "none"]
    assert [style.colour for style in plain] == COLOURS[: len(ORDER)]
    of_rope = [style for (scheme, _), style in line_styles.items() if scheme == "rope"]
    assert len({style.colour for style in of_rope}) == len(of_rope)
    chosen = FigureData.of(rows, ORDER).narrowed({"scheme": ["rope", "alibi"]}, mix_kernels=False)
    assert chosen.line_styles == line_styles
    assert set(chosen.rows["scheme"]) == {"rope", "alibi"}


@pytest.mark.parametrize(("schemes", "extensions"), [(3, 4), (7, 5), (12, 8), (45, 26)])
def test_line_styles_are_unique(schemes, extensions):
    plain = [(f"scheme{place}", "none") for place in range(schemes)]
    extended = [(scheme, f"extension{place}") for scheme, _ in plain for place in range(extensions)]
    line_styles = assign_line_styles([*plain, *extended])
    styles = {(style.colour, style.marker, style.dashes) for style in line_styles.values()}
    assert len(styles) == len(plain) + len(extended)
    assert [line_styles[series] for series in plain] == [*assign_line_styles(plain).values()], (
        "independent of extensions"
    )
    assert [line_styles[series].colour for series in plain[: len(COLOURS)]] == COLOURS[:schemes]
    for scheme, _ in plain:
        family = [style for (whose, _), style in line_styles.items() if whose == scheme]
        colours = [style.colour for style in family]
        assert colours[0] not in colours[1:]
        if len(line_styles) <= UNDASHED / 2:
            assert len(set(colours)) == len(family)
            assert len({style.marker for style in family}) == len(family), "in grey too"
            assert {style.dashes for style in family} == {"-"}


def test_a_scheme_has_the_same_style_in_every_experiment():
    """Fault: rope was an orange diamond, a blue circle or a yellow square, by its place among an experiment's schemes."""
    assert set(SCHEMES) <= {path.stem for path in (CONFIGS.parent / "scheme").glob("*.yaml")}
    of_its_own = assign_line_styles([(scheme, "none") for scheme in SCHEMES])
    for schemes in (["rope"], ["alibi", "other", "rope"], ["another", "stick_breaking", "fire", "nope"]):
        series = [(scheme, "none") for scheme in schemes]
        found = assign_line_styles([*series, *((scheme, "pi") for scheme in schemes)])
        assert {key: found[key] for key in series if key in of_its_own} == {
            key: of_its_own[key] for key in series if key in of_its_own
        }
        others = {(found[key].colour, found[key].marker) for key in found if key not in of_its_own}
        assert not others & {(style.colour, style.marker) for style in of_its_own.values()}
        assert len({found[key].colour for key in series}) == len(series)


def test_few_series_have_different_colours():
    series = [
        ("rope", "none"),
        ("alibi", "none"),
        ("t5", "none"),
        ("rope", "pi"),
        ("rope", "ntk"),
        ("t5", "pi"),
    ]
    assert len({style.colour for style in assign_line_styles(series).values()}) == len(series)


def test_schemes_and_extensions_in_one_panel_have_different_styles(rows):
    figure, shown = retrieval_by_position.draw(FigureData.of(rows, ORDER), extension=None)
    count = len(shown[shown["estimate"].notna()][["scheme", "extension"]].drop_duplicates())
    assert count > len(COLOURS)
    handles = figure.axes[-1].get_legend().legend_handles[:count]
    for lines in (
        handles,
        *([line for line in axes.lines if line.get_marker() != "None"] for axes in figure.axes),
    ):
        styles = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
        assert len(styles) == len(lines) > 5


def test_retrieval_shows_baselines_and_omits_models_that_have_not_learned(rows):
    figure, shown = retrieval_by_position.draw(FigureData.of(rows, ORDER))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "64 tokens, 1× (training length)",
        "128 tokens, 2×",
        "256 tokens, 4×",
    ]
    legend = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert legend == [*ORDER, "chance", "random value of the context", "gate (training length)"]
    drawn = shown[shown["estimate"].notna()]
    assert set(drawn[drawn["scheme"] == "nope"]["eval_len"]) == {64}
    assert shown["chance"].eq(1 / 16).all()
    assert "Left out at longer contexts: nope." in texts(figure)


def test_kernels_are_not_mixed_within_a_series(rows, tmp_path):
    other = (rows["eval_len"] == 512) & (rows["scheme"] == "rope") & (rows["extension"] == "none")
    mixed = rows.assign(kernel=rows["kernel"].mask(other, "dense"))
    with pytest.raises(
        IncompatibleError, match=r"rope was computed with kernels dense, sdpa.*mix_kernels"
    ) as error:
        draw_figure(config("fixed_targets"), mixed, tmp_path)
    assert "\n" not in str(error.value)
    FigureData.of(mixed, []).narrowed(None, mix_kernels=True).select("perplexity", protocol="fixed_targets")
    FigureData.of(mixed, []).select("perplexity", protocol="prefix")  # rows of one kernel
    across = rows.assign(kernel=rows["kernel"].mask(rows["scheme"] == "rope", "dense"))
    FigureData.of(across, []).select("perplexity", protocol="fixed_targets")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "sliding"}, "no rows of task perplexity with protocol sliding"),
        ({"filters": {"scheme": "cope"}}, "no rows with scheme cope"),
        ({"filters": {"schema": "rope"}}, "did you mean 'scheme'"),
        ({"protocl": "prefix"}, "did you mean 'protocol'"),
        ({"metric": "bits"}, "unknown metric 'bits'"),
        ({"draw": "posbench.report.figures.pie.draw"}, "cannot be imported"),
        ({"draw": None}, "has no 'draw'"),
        (
            {"draw": "posbench.report.figures.extensions.draw", "protocol": "prefix"},
            "has no setting 'scheme'",
        ),
        ({"filters": {"status": "undefined"}}, "no numbers of task perplexity, only undefined"),
    ],
)
def test_errors_have_one_line(rows, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        draw_figure(config("fixed_targets") | changes, rows, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_settings_are_not_mixed_in_one_figure(rows, tmp_path):
    both = pd.concat([rows, rows.assign(train_len=128)])
    with pytest.raises(
        ConfigError, match=r"one train_len, the rows hold 64, 128: .*filters: \{train_len: 64\}"
    ):
        draw_figure(config("fixed_targets"), both, tmp_path)
    draw_figure(config("fixed_targets", filters={"train_len": 64}), both, tmp_path)


def test_figure_of_extensions_requires_extensions(rows, tmp_path):
    with pytest.raises(MissingRowsError, match="extensions of rope"):
        draw_figure(config("extensions"), rows[rows["extension"] == "none"], tmp_path)
