"""Retrieval beside the attention of the query token: why a record is retrieved or not."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, band, captioned_subplots, label_width, length_axis
from posbench.report.figures.depth import binned, bins_note
from posbench.report.figures.distance import BUCKETS, DISTANCE, distance_axis, uniform
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
    title: str = "Attention of the query token, beside retrieval",
    metric: str = "exact_match",
    extension: str | None = "none",
    bins: int = 8,
) -> Drawing:
    """Draws retrieval and attention by depth, by distance and by context length.

    Args:
        extension: the extension of all lines; None draws all.
        bins: bins of depth.
    """
    retrieval, gold = get_metric(metric), get_metric("answer_attention")
    found = data.select(retrieval.tasks[0], of=retrieval, protocol="synthetic_records", extension=extension)
    rows = data.select("attention", protocol="synthetic_records", extension=extension)
    if extension is None and (rows["extension"] == "none").all():
        raise MissingRowsError("no rows of task attention with extensions: evaluate some first")
    train_len, lengths = int(rows["train_len"].iat[0]), sorted(rows["eval_len"].unique())
    far = max(set(lengths) & set(found["eval_len"]), default=lengths[-1])
    of_answer = _answer_heads(rows)
    parts = {
        "retrieval": (binned(found, bins), retrieval, ["eval_len", "depth"]),
        "answer_attention_by_depth": (binned(of_answer, bins), gold, ["eval_len", "depth"]),
        "attention_at_distance": (_of(rows, "attention_at_distance"), DISTANCE, ["eval_len", "position"]),
        "attention_entropy": (_relative(rows), RELATIVE, ["eval_len"]),
        "sink_attention": (rows, get_metric("sink_attention"), ["eval_len"]),
        "last_quarter_attention": (rows, get_metric("last_quarter_attention"), ["eval_len"]),
        "answer_attention": (of_answer, gold, ["eval_len"]),
    }
    shown = {
        name: aggregate(rows_of_metric(part, what), what, by=by) for name, (part, what, by) in parts.items()
    }
    handles = [
        Line2D([], [], **style.plot_kwargs, label=style.label)
        for style, _ in data.series(shown["sink_attention"])
    ]
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="uniform over all tokens"))
    notes = [
        f"B and H: of each model, the head with the largest weight on the answer at {lengths[0]} tokens, chosen by the contexts "
        f"that are shown, which favours this length. C to G: means over "
        f"all layers and heads. {bins_note(bins, 'point of A and B')}",
        "Entropy: 1 is uniform over all tokens, 0 a single token. The weight that a softmax with a sink gives to no token "
        "counts as a token.",
        BUCKETS,
        "B to H include models that have not learned the task.",
    ]
    sides = [
        (found, aggregate(found, retrieval), retrieval),
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
        top, ("retrieval", "answer_attention_by_depth"), ("A  Retrieval", "B  One head"), strict=False
    ):
        here = shown[name][shown[name]["eval_len"] == far]
        _lines(panel, data, here, "depth")
        panel.set_title(f"{heading}, {far} tokens", loc="left")
        panel.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
        panel.set(xlim=(-0.03, 1.03), xlabel="queried record")
    top[0].set_ylabel(retrieval.label)
    top[1].set_ylabel("attention to the answer")
    for panel, length, letter in zip(top[2:], (train_len, far), "CD", strict=True):
        here = shown["attention_at_distance"][shown["attention_at_distance"]["eval_len"] == length]
        uniform(panel, length)
        _lines(panel, data, here.assign(place=np.log2(here["position"].astype(float))), "place")
        distance_axis(panel, length)
        panel.set_title(f"{letter}  All heads, {length} tokens", loc="left")
        panel.set_ylabel("attention")
        panel.set_ylim(0, _limit(shown["attention_at_distance"]))
    headings = {
        "attention_entropy": ("E  Entropy", RELATIVE.label, None),
        "sink_attention": ("F  First 4 tokens", "attention", [4 / length for length in lengths]),
        "last_quarter_attention": ("G  Last quarter of the context", "attention", [0.25 for _ in lengths]),
        "answer_attention": (
            "H  One head",
            "attention to the answer",
            [1 / length for length in lengths],
        ),
    }
    for panel, (name, (heading, label, of_uniform)) in zip(bottom, headings.items(), strict=True):
        if of_uniform:
            panel.plot(lengths, of_uniform, color=GREY, linestyle=":", linewidth=1.2)
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
    """Returns entropies as fractions of log(length), the largest possible."""
    rows = _of(rows, "attention_entropy")
    return rows.assign(value_sum=rows["value_sum"] / np.log(rows["eval_len"].astype(float)))


def _answer_heads(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of each model's head with the largest weight on the answer at the shortest context."""
    rows = _of(rows, "answer_attention")
    model, head = [*SERIES_COLUMNS, "train_seed"], ["layer", "head"]
    home = rows[rows["eval_len"] == rows.groupby(model)["eval_len"].transform("min")]
    weight = home.groupby([*model, *head])["value_sum"].mean().reset_index()
    best = weight.loc[weight.groupby(model)["value_sum"].idxmax(), [*model, *head]]
    return rows.merge(best, on=[*model, *head])


def _limit(shown: pd.DataFrame) -> float:
    """Upper limit of an axis of fractions; at least 0.2, so that noise does not fill the panel."""
    return min(1.0, max(0.2, 1.1 * shown["estimate"].max()))


def _lines(panel: Axes, data: FigureData, shown: pd.DataFrame, x: str) -> None:
    """Draws a line per series on an axis from 0 to 1, with bands over seeds."""
    for style, line in data.series(shown[shown["estimate"].notna()]):
        panel.plot(line[x], line["estimate"], **style.plot_kwargs, clip_on=False)
        band(panel, line[x], line, style.colour)
    panel.set_ylim(0, 1)
