"""The files of the property card: the same bytes each time, and apart from them what a clock measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from posbench.errors import ConfigError
from posbench.files import write_text
from posbench.properties import card_figure, cost_figure, decay_figure
from posbench.properties.card import COLUMNS, ordered
from posbench.properties.cost import cost, machine
from posbench.properties.measure import Row, measure, rounded
from posbench.properties.order import permutation_control
from posbench.properties.probe import SHAPE
from posbench.report.figures import Drawing, house_style, save
from posbench.report.tables.markup import Table, TableCell, to_latex, to_markdown

COMMAND = "posbench properties results_dir=results/published"
TITLE = "What makes a good position scheme, measured on each scheme's own definition"
DECAY_TITLE = "Does a scheme say less of what is farther away?"
COST_TITLE = "What a scheme costs a forward pass"
_SIGNS = {
    "●": r"$\bullet$",
    "◐": r"$\odot$",
    "○": r"$\circ$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
}


def write(settings: Mapping[str, Mapping[str, Any]], folder: Path, costs: bool) -> list[Path]:
    """Measure schemes, given what builds each by its name, and write tables and figures of them."""
    measured = [measure(name, build) for name, build in settings.items()]
    rows = ordered([rounded(row) for row, _ in measured])
    curves = {row["scheme"]: curve.round(9) for row, curve in measured}
    caption = _caption()
    written = _table(rows, caption, folder)
    with house_style():
        drawn: dict[str, Drawing] = {
            "card": card_figure.draw(rows, TITLE, caption),
            "decay": decay_figure.draw(rows, curves, DECAY_TITLE, _decay_caption()),
        }
        for name, (figure, shown) in drawn.items():
            written += save(figure, shown, folder / name)
        if costs:
            timed = [{"scheme": name, **cost(build)} for name, build in settings.items()]
            written += save(*cost_figure.draw(timed, COST_TITLE, _cost_caption()), folder / "costs")
    return written


def _table(rows: Sequence[Row], caption: str, folder: Path) -> list[Path]:
    header = ["scheme", "acts on", *(column.title.replace("\n", " ") for column in COLUMNS)]
    body = [
        [
            TableCell(row["scheme"]),
            TableCell(row["acts_on"]),
            *(TableCell(str(column.of(row))) for column in COLUMNS),
        ]
        for row in rows
    ]
    numbers = pd.DataFrame(rows)
    table = Table("properties", TITLE, caption, header, body, numbers)
    latex = to_latex(table)
    for sign, command in _SIGNS.items():
        latex = latex.replace(sign, command)
    texts = {
        "properties.csv": numbers.to_csv(index=False, float_format="%.4g", lineterminator="\n"),
        "properties.md": to_markdown(table),
        "properties.tex": latex,
    }
    try:
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise ConfigError(
            f"cannot write {folder} ({error.strerror or error}): choose a folder that can be written"
        ) from None
    return [folder / name for name in texts]


def _caption() -> str:
    meanings = "; ".join(f"‘{column.title.replace(chr(10), ' ')}’: {column.meaning}" for column in COLUMNS)
    without = permutation_control()
    return (
        "● has the property, ◐ in part, ○ has it not, – does not apply. Untrained schemes with the settings of their "
        f"yaml and seed 0, in float64; {SHAPE.n_layers} layers, width {SHAPE.d_model}, {SHAPE.n_heads} heads, training "
        f"length {SHAPE.train_len}; what is below 1e-9 counts as 0. {meanings}. Control: without mask and scheme, "
        f"|f(Px) - Pf(x)| of a model of two layers is {0 if without['unmasked'] < 1e-9 else without['unmasked']:.2g}; "
        f"with the causal mask alone it is {without['causal']:.2g}: the mask by itself tells of order. "
        f"Made by {COMMAND}."
    )


def _decay_caption() -> str:
    return (
        "Mean over heads of the logit between two tokens at a distance (logarithmic) where all queries and keys are "
        "the constant vector of ones, head dimension 64, in parts of the logit without a scheme (8 nats): for a "
        "rotation the mean cosine. Blue: the exact curve, to 16 times the training length of 64 (dashed); a second "
        "line where layers differ. Orange: its envelope, the largest value from there on. A cross: nothing farther is "
        "seen, or there is no answer. Untrained, seed 0: trained tables are random here. Where attention is no softmax "
        f"of pairs: the weight over that of the token itself. Made by {COMMAND}."
    )


def _cost_caption() -> str:
    return (
        f"Not the same each time: {machine()}. Time: the median ratio of alternating pairs of passes with its 95% "
        "interval. Memory: what torch's allocator held at its peak beyond no scheme's peak; kernels that write out "
        f"pairs hold more, and what stays under the peak of the MLP is not seen. Made by {COMMAND}."
    )
