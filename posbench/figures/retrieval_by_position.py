"""Retrieval by where the gold record lies: the lost-in-the-middle figure, one panel a length."""

from matplotlib.lines import Line2D

from posbench.figures import Drawing
from posbench.figures.canvas import GREY, GUESS_STYLES, page, room
from posbench.figures.depth import binned
from posbench.figures.source import Source
from posbench.tables.captions import caption
from posbench.tables.measures import MEASURES, measure_named
from posbench.tables.summary import baselines, summarise


def draw(
    source: Source,
    *,
    title: str = "Where in the context a record is found again",
    measure: str = "exact_match",
    protocol: str | None = None,
    extension: str | None = "none",
    bins: int = 8,
) -> Drawing:
    what = measure_named(measure)
    rows = source.pick(what.task, protocol=protocol, extension=extension)
    by_length = summarise(rows, what, within_seed=False)
    shown = summarise(binned(rows, bins), what, by=["eval_len", "depth"], within_seed=False)
    guesses = baselines(rows)
    train_len = int(rows["train_len"].iat[0])
    lengths = sorted(by_length["eval_len"].unique())
    lines = [
        Line2D([], [], color=look.colour, marker=look.marker, label=look.label)
        for look, _ in source.series(by_length)
    ]
    grey = [
        Line2D([], [], color=GREY, linestyle=style, label=MEASURES[name].label)
        for name, style in GUESS_STYLES.items()
    ]
    handles = [*lines, *grey]
    figure, axes = page(
        title,
        caption([(rows, by_length, what)]),
        panel=(2.1, 2.8),
        columns=len(lengths),
        right=0.35 + room(str(handle.get_label()) for handle in handles),
        share=True,
    )
    for panel, length in zip(axes[0], lengths, strict=True):
        for name, style in GUESS_STYLES.items():
            panel.axhline(guesses[name].get(length, float("nan")), color=GREY, linestyle=style, linewidth=1.2)
        here = shown[(shown["eval_len"] == length) & shown["estimate"].notna()]
        for look, line in source.series(here):
            panel.plot(line["depth"], line["estimate"], color=look.colour, marker=look.marker, clip_on=False)
            panel.fill_between(line["depth"], line["low"], line["high"], color=look.colour, alpha=0.15, lw=0)
        trained = " (trained here)" if length == train_len else ""
        panel.set_title(f"{length} tokens, {length / train_len:g}×{trained}")
        panel.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
        panel.set_xlabel("record asked for")
    axes[0, 0].set(xlim=(-0.03, 1.03), ylabel=what.label)
    if what.share:
        axes[0, 0].set_ylim(0, 1)
    axes[0, -1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.05, 0.5))
    return figure, shown.merge(guesses.reset_index(), on="eval_len", how="left")
