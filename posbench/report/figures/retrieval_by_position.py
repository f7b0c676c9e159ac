"""Retrieval by where the gold record lies: the lost-in-the-middle figure, one panel a length, one row a variant."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from posbench.report.figures import Drawing
from posbench.report.figures.canvas import GREY, GUESS_STYLES, page, room
from posbench.report.figures.depth import binned
from posbench.report.figures.source import Source
from posbench.report.tables.caption_text import PLACES, variant_name
from posbench.report.tables.captions import caption
from posbench.report.tables.measures import MEASURES, Measure, measure_named
from posbench.report.tables.summary import baselines, summarise
from posbench.results.gate import ACCURACIES, GATE

GATE_STYLE = (0, (6, 2, 1, 2))


def draw(
    source: Source,
    *,
    title: str = "Where in the context a record is found again",
    task: str = "key_value",
    measure: str = "exact_match",
    protocol: str | None = None,
    variant: str | Sequence[str] | None = None,
    extension: str | None = "none",
    bins: int = 8,
) -> Drawing:
    """Several variants, such as ['', query_aware], are compared: a row of panels each."""
    what = measure_named(measure, task)
    variants = [variant] if variant is None or isinstance(variant, str) else list(variant)
    picked = [source.pick(task, protocol=protocol, variant=name, extension=extension) for name in variants]
    by_length = [summarise(rows, what) for rows in picked]
    shown = [summarise(binned(rows, bins), what, by=["eval_len", "depth"]) for rows in picked]
    guesses = [baselines(rows, what.guesses) for rows in picked]
    train_len = int(picked[0]["train_len"].iat[0])
    lengths = sorted({length for numbers in by_length for length in numbers["eval_len"]})
    names = list(dict.fromkeys(name for each in guesses for name in each))
    handles = _handles(source, pd.concat(by_length), names, what, train_len in lengths)
    figure, axes = page(
        title,
        caption([(pd.concat(picked), pd.concat(by_length), what)]),
        panel=(2.1, 2.8 if len(picked) == 1 else 2.0),
        columns=len(lengths),
        rows=len(picked),
        gap=(0.3, 0.75),
        right=0.35 + room(str(handle.get_label()) for handle in handles),
        share=True,
    )
    for down, (name, numbers, grey) in enumerate(zip(variants, shown, guesses, strict=True)):
        for panel, length in zip(axes[down], lengths, strict=True):
            _panel(panel, source, numbers[numbers["eval_len"] == length], grey, length)
            if what.name in ACCURACIES and length == train_len:
                panel.axhline(GATE, color=GREY, linestyle=GATE_STYLE, linewidth=1, zorder=1)
            trained = " (trained here)" if length == train_len else ""
            panel.set_title(f"{length} tokens, {length / train_len:g}×{trained}")
            panel.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
        axes[down, 0].set_ylabel(
            what.label if len(picked) == 1 else f"{variant_name(str(name))}\n{what.label}"
        )
    for panel in axes[-1]:
        panel.set_xlabel(PLACES.get(task, "record asked for"))
    axes[0, 0].set_xlim(-0.03, 1.03)
    if what.share:
        axes[0, 0].set_ylim(0, 1)
    axes[0, -1].legend(
        handles=handles,
        loc="upper left" if len(picked) > 1 else "center left",
        bbox_to_anchor=(1.05, 1.0 if len(picked) > 1 else 0.5),
    )
    parts = [
        numbers.merge(grey.reset_index(), on="eval_len", how="left").assign(variant=rows["variant"].iat[0])
        for rows, numbers, grey in zip(picked, shown, guesses, strict=True)
    ]
    return figure, pd.concat(parts, ignore_index=True)


def _handles(
    source: Source, by_length: pd.DataFrame, guesses: Sequence[str], what: Measure, at_home: bool
) -> list[Line2D]:
    drawn = by_length[by_length["estimate"].notna()]
    handles = [Line2D([], [], **look.line, label=look.label) for look, _ in source.series(drawn)]
    handles += [
        Line2D([], [], color=GREY, linestyle=GUESS_STYLES[name], label=MEASURES[name].label)
        for name in guesses
    ]
    if what.name in ACCURACIES and at_home:
        handles.append(
            Line2D([], [], color=GREY, linestyle=GATE_STYLE, linewidth=1, label="gate, where trained")
        )
    return handles


def _panel(panel: Axes, source: Source, here: pd.DataFrame, guesses: pd.DataFrame, length: int) -> None:
    for name, column in guesses.items():
        height = column.get(length, float("nan"))
        panel.axhline(height, color=GREY, linestyle=GUESS_STYLES[str(name)], linewidth=1.2)
    for look, line in source.series(here[here["estimate"].notna()]):
        panel.plot(line["depth"], line["estimate"], **look.line, clip_on=False)
        panel.fill_between(line["depth"], line["low"], line["high"], color=look.colour, alpha=0.15, lw=0)
