"""Why a record is found again or not: retrieval beside what the question's last token attends to."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, band, captioned_subplots, label_width, length_axis
from posbench.report.figures.depth import binned
from posbench.report.figures.distance import BUCKETS, DISTANCE, distance_axis, evenly
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.captions import caption
from posbench.report.tables.metrics import Metric, get_metric
from posbench.report.tables.selection import SERIES_COLUMNS, rows_of_metric
from posbench.report.tables.summary import aggregate

RELATIVE = Metric(
    "relative_entropy", ("attention",), "attention_entropy", "entropy / log(length)", None, is_fraction=True
)


def draw(
    data: FigureData,
    *,
    title: str = "Why a record is found again, or not",
    metric: str = "exact_match",
    extension: str | None = "none",
    bins: int = 8,
) -> Drawing:
    retrieval, gold = get_metric(metric), get_metric("answer_attention")
    found = data.select(retrieval.tasks[0], of=retrieval, protocol="synthetic_records", extension=extension)
    rows = data.select("attention", protocol="synthetic_records", extension=extension)
    if extension is None and (rows["extension"] == "none").all():
        raise MissingRowsError("no rows of task attention with extensions: evaluate some first")
    train_len, lengths = int(rows["train_len"].iat[0]), sorted(rows["eval_len"].unique())
    far = max(set(lengths) & set(found["eval_len"]), default=lengths[-1])
    looking = _looking(rows)
    parts = {
        "retrieval": (binned(found, bins), retrieval, ["eval_len", "depth"]),
        "answer_attention_by_depth": (binned(looking, bins), gold, ["eval_len", "depth"]),
        "attention_at_distance": (_of(rows, "attention_at_distance"), DISTANCE, ["eval_len", "position"]),
        "attention_entropy": (_relative(rows), RELATIVE, ["eval_len"]),
        "sink_attention": (rows, get_metric("sink_attention"), ["eval_len"]),
        "last_quarter_attention": (rows, get_metric("last_quarter_attention"), ["eval_len"]),
        "answer_attention": (looking, gold, ["eval_len"]),
    }
    shown = {
        name: aggregate(rows_of_metric(part, what), what, by=by, within_seed=False)
        for name, (part, what, by) in parts.items()
    }
    handles = [
        Line2D([], [], **style.plot_kwargs, label=style.label)
        for style, _ in data.series(shown["sink_attention"])
    ]
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="evenly over all tokens"))
    notes = [
        "The look-up head is each model's head with the largest weight on the answer at its shortest context; it is "
        "followed to longer ones. Other panels are means over all layers and heads.",
        "Entropy 1: evenly over all tokens read; 0: one token. What a scheme attends to nowhere counts as one more.",
        BUCKETS,
        "First tokens: the first 4. Models that have not learned to retrieve are shown by what they attend to all "
        "the same.",
    ]
    sides = [
        (found, aggregate(found, retrieval, within_seed=False), retrieval),
        (rows, shown["sink_attention"], get_metric("sink_attention")),
    ]
    figure, axes = captioned_subplots(
        title,
        caption(sides, *notes),
        panel=(2.35, 1.95),
        columns=4,
        rows=2,
        gap=(0.62, 1.0),
        right=0.3 + label_width(str(handle.get_label()) for handle in handles),
    )
    top, bottom = axes
    for panel, name, heading in zip(
        top, ("retrieval", "answer_attention_by_depth"), ("A  Retrieval", "B  Look-up head"), strict=False
    ):
        here = shown[name][shown[name]["eval_len"] == far]
        _lines(panel, data, here, "depth")
        panel.set_title(f"{heading}, {far} tokens", loc="left")
        panel.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
        panel.set(xlim=(-0.03, 1.03), xlabel="record asked for")
    top[0].set_ylabel(retrieval.label)
    top[1].set_ylabel("attention to the answer")
    for panel, length, letter in zip(top[2:], (train_len, far), "CD", strict=True):
        here = shown["attention_at_distance"][shown["attention_at_distance"]["eval_len"] == length]
        evenly(panel, length)
        _lines(panel, data, here.assign(place=np.log2(here["position"].astype(float))), "place")
        distance_axis(panel, far)
        panel.set_title(f"{letter}  All heads, {length} tokens", loc="left")
        panel.set_ylabel("attention")
        panel.set_ylim(0, _limit(shown["attention_at_distance"]))
    headings = {
        "attention_entropy": ("E  How spread", RELATIVE.label, None),
        "sink_attention": ("F  On the first tokens", "attention", [4 / length for length in lengths]),
        "last_quarter_attention": ("G  On the last quarter", "attention", [0.25 for _ in lengths]),
        "answer_attention": (
            "H  Look-up head on the answer",
            "attention",
            [1 / length for length in lengths],
        ),
    }
    for panel, (name, (heading, label, even)) in zip(bottom, headings.items(), strict=True):
        if even:
            panel.plot(lengths, even, color=GREY, linestyle=":", linewidth=1.2)
        _lines(panel, data, shown[name], "eval_len")
        length_axis(panel, lengths, train_len, "context length (tokens)")
        panel.set_title(heading, loc="left", pad=14)
        panel.set_ylabel(label)
    for panel in axes.flat:
        panel.yaxis.set_major_locator(MaxNLocator(5))
    bottom[1].set_ylim(0, _limit(shown["sink_attention"]))
    axes[0, -1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.04, 1.05))
    return figure, pd.concat([part.assign(panel=name) for name, part in shown.items()])


def _of(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[rows["metric"] == metric]


def _relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Entropies as shares of the largest that a length allows."""
    rows = _of(rows, "attention_entropy")
    return rows.assign(value_sum=rows["value_sum"] / np.log(rows["eval_len"].astype(float)))


def _looking(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each model's look-up head: of the largest weight on the answer where its context is shortest."""
    rows = _of(rows, "answer_attention")
    model, head = [*SERIES_COLUMNS, "train_seed"], ["layer", "head"]
    home = rows[rows["eval_len"] == rows.groupby(model)["eval_len"].transform("min")]
    weight = home.groupby([*model, *head])["value_sum"].mean().reset_index()
    best = weight.loc[weight.groupby(model)["value_sum"].idxmax(), [*model, *head]]
    return rows.merge(best, on=[*model, *head])


def _limit(shown: pd.DataFrame) -> float:
    """The upper end of an axis of small shares, never so low that rounding looks like an effect."""
    return min(1.0, max(0.2, 1.1 * shown["estimate"].max()))


def _lines(panel: Axes, data: FigureData, shown: pd.DataFrame, x: str) -> None:
    """One line a series from 0 to 1, with a band where there are several seeds."""
    for style, line in data.series(shown[shown["estimate"].notna()]):
        panel.plot(line[x], line["estimate"], **style.plot_kwargs, clip_on=False)
        band(panel, line[x], line["low"], line["high"], style.colour)
    panel.set_ylim(0, 1)
