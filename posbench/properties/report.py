"""Files of the property card. All are reproducible to the byte, except for the measured costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from posbench import checksums
from posbench.errors import ConfigError
from posbench.files import write_bytes, write_text
from posbench.properties import card_figure, cost_figure, decay_figure
from posbench.properties.card import COLUMNS, NOT_NATS, ordered
from posbench.properties.cost import cost, machine
from posbench.properties.measure import Row, measure, rounded
from posbench.properties.order import permutation_control
from posbench.properties.pictures import pictures
from posbench.properties.probe import SHAPE
from posbench.report.figures import Drawing, house_style, save
from posbench.report.tables.markup import Table, TableCell, to_latex, to_markdown

TITLE = "Properties of position schemes, measured on their definitions"
DECAY_TITLE = "Decay of logits with distance"
COST_TITLE = "Cost of a forward pass"
PICTURED_AROUND = {"_target_": "posbench.schemes.rope.RoPE"}
_SIGNS = {
    "●": r"$\bullet$",
    "◐": r"$\odot$",
    "○": r"$\circ$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    NOT_NATS: r"$\times$",
}


def write(
    settings: Mapping[str, Mapping[str, Any]],
    folder: Path,
    command: str,
    costs: bool,
    extensions: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Measures schemes, writes their tables and figures, and returns the paths.

    Args:
        settings: build settings by name of the scheme.
        command: what was called, for captions.
        costs: measure time and memory too.
        extensions: build settings of extensions, of which there are pictures around PICTURED_AROUND.

    Raises:
        ConfigError: the folder cannot be written.
    """
    measured = [measure(name, build) for name, build in settings.items()]
    rows = ordered([rounded(row) for row, _ in measured])
    curves = {row["scheme"]: curve.round(9) for row, curve in measured}
    made = f"Made by {command}."
    caption = f"{_caption()} {made}"
    written = [*_table(rows, caption, folder), _cards(rows, settings, extensions or {}, command, folder)]
    with house_style():
        drawn: dict[str, Drawing] = {
            "card": card_figure.draw(rows, TITLE, caption),
            "decay": decay_figure.draw(rows, curves, DECAY_TITLE, f"{_DECAY_CAPTION} {made}"),
        }
        for name, (figure, shown) in drawn.items():
            written += save(figure, shown, folder / name)
        if costs:
            timed = [{"scheme": name, **cost(build)} for name, build in settings.items()]
            drawing = cost_figure.draw(timed, COST_TITLE, f"{_cost_caption()} {made}")
            written += save(*drawing, folder / "costs")
    return written


def _table(rows: Sequence[Row], caption: str, folder: Path) -> list[Path]:
    header = ["scheme", "acts on", *(_one_line(column.title) for column in COLUMNS)]
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


def _cards(
    rows: Sequence[Row],
    settings: Mapping[str, Mapping[str, Any]],
    extensions: Mapping[str, Mapping[str, Any]],
    command: str,
    folder: Path,
) -> Path:
    """Writes ratings and pictures for the report in HTML, which does not import torch."""
    schemes = {
        row["scheme"]: {
            "ratings": {
                "acts on": row["acts_on"],
                **{_one_line(one.title): str(one.of(row)) for one in COLUMNS},
            },
            "pictures": [one.as_json() for one in pictures(settings[row["scheme"]])],
        }
        for row in rows
    }
    meanings = {_one_line(one.title): one.meaning for one in COLUMNS}
    around = {name: _pictures_around(build) for name, build in extensions.items()}
    content: dict[str, Any] = {"command": command, "legend": _LEGEND, "meanings": meanings}
    content |= {"schemes": schemes, "extensions": {name: {"pictures": one} for name, one in around.items()}}
    path = folder / "cards.json"
    write_bytes(path, checksums.dump_json(content))
    return path


def _pictures_around(extension: Mapping[str, Any]) -> list[dict[str, str]]:
    try:
        found = pictures(PICTURED_AROUND, extension)
    except ConfigError:  # it needs factors that were searched for a model, or another scheme
        return []
    return [{**one.as_json(), "about": f"Around rope. {one.about}"} for one in found]


def _one_line(title: str) -> str:
    return title.replace("\n", " ")


_LEGEND = (
    "● has the property, ◐ in part, ○ does not have it, – not applicable. Schemes are untrained (default settings, "
    f"seed 0) and in float64, with {SHAPE.n_layers} layers, width {SHAPE.d_model}, {SHAPE.n_heads} heads and a "
    f"training length of {SHAPE.train_len} tokens; values below 1e-9 count as 0. Logits are those before the softmax or another "
    f"normalizer. {NOT_NATS}: not in nats, because some or all layers have no logits and are measured by their weights, "
    "relative to the weight of the token itself."
)


def _caption() -> str:
    meanings = "; ".join(f"‘{_one_line(column.title)}’: {column.meaning}" for column in COLUMNS)
    without = permutation_control()
    return (
        f"{_LEGEND} {meanings}. Control: the largest "
        "|f(Px) - Pf(x)| of a two-layer model f without a scheme, under permutations P of its tokens, is "
        f"{0 if without['unmasked'] < 1e-9 else without['unmasked']:.2g} without a mask and {without['causal']:.2g} with "
        f"the causal mask, which by itself encodes order."
    )


_DECAY_CAPTION = (
    "Mean over heads of the logit between two tokens by distance (logarithmic axis), if all queries and keys are "
    "the vector of ones (head dimension 64), relative to the logit without a scheme (8 nats); for rotations, this "
    "is the mean cosine. For layers without logits, such as linear attention: the weight relative to the weight of the "
    "token itself. Blue: the curve, up to 16 times the training length of 64 (vertical line); of layers that "
    "differ, the first is solid, the others are dashed or dotted. Orange: its envelope, the largest value at this "
    "distance or beyond. Cross: more distant tokens are masked, or the scheme is undefined. 'from', 'to': the largest "
    "and the smallest value, beyond the axis. 'below the axis': the whole curve from distance 1 on, such as where some "
    "heads hide tokens by a bias of -10,000 nats. Schemes are untrained (seed 0), so learned tables are random."
)


def _cost_caption() -> str:
    return (
        f"Measured on {machine()}; results differ between runs. Time: the median ratio of alternating passes, with its "
        "95% interval. Memory: the peak of torch's allocator minus the peak without a scheme; kernels that store all "
        f"pairs need more, and memory below the peak of the MLP does not show."
    )
