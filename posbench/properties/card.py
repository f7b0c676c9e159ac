"""Columns of the property card: each turns the numbers of a scheme into a rating and a short text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posbench.properties.length_behavior import CHANGING, CONSTANT, HIDDEN, POSITION_BLIND, UNDEFINED
from posbench.properties.measure import Row
from posbench.properties.ratings import NO, NOT_APPLICABLE, PARTIAL, YES, Rating, format_compact

NEARLY = 1e-3  # relative error of a linear map that counts as nearly exact
EXCESS = 0.1  # nats beyond the range of logits at the training length
NOT_NATS = "×"
BEHAVIORS = {
    UNDEFINED: "undefined",
    HIDDEN: "masked",
    POSITION_BLIND: "no positions",
    CONSTANT: "constant",
    CHANGING: "changing",
}


@dataclass(frozen=True)
class Column:
    """A column of the card: title (two lines), meaning for the caption, and the rating of a scheme's numbers."""

    title: str
    meaning: str
    of: Callable[[Row], Rating]


def _position_blind(row: Row) -> bool:
    return row["behavior_1x"] == POSITION_BLIND


def _amount(row: Row, value: float) -> str:
    return format_compact(value) + NOT_NATS * row["has_weights"]


def _order(row: Row) -> Rating:
    change = row["order_sensitivity"]
    return Rating(YES if change > 0 else NO, format_compact(change) if change else "none")


def _source(row: Row) -> Rating:
    source = row["position_source"]
    if source == "formula" and _position_blind(row):
        return Rating(NOT_APPLICABLE, BEHAVIORS[POSITION_BLIND])
    return Rating({"formula": YES, "trained": PARTIAL}.get(source, NO), source)


def _unique(row: Row) -> Rating:
    if row["indistinguishable_fraction"] == 0:
        return Rating(YES, f"≥ {_amount(row, row['min_logit_difference'])}")
    return (
        Rating(NO, "all equal")
        if row["indistinguishable_fraction"] == 1
        else Rating(PARTIAL, f"{100 * row['indistinguishable_fraction']:.0f}% equal")
    )


def _distances(row: Row) -> Rating:
    if math.isnan(row["position_distance"]):
        return Rating(NOT_APPLICABLE)
    both = (row["position_distance"], row["token_distance"])
    return Rating(YES if all(one > 0 for one in both) else NO, " / ".join(map(format_compact, both)))


def _relative(row: Row) -> Rating:
    if _position_blind(row):
        return Rating(NOT_APPLICABLE, BEHAVIORS[POSITION_BLIND])
    if not row["shift_change"] <= 0:
        return Rating(NO, f"off by {_amount(row, row['shift_change'])}")
    spread = row["diagonal_spread"]
    if spread == 0:
        return Rating(YES, "exact")
    return Rating(PARTIAL, "except mask" if math.isinf(spread) else f"index: {_amount(row, spread)}")


def _linear(row: Row) -> Rating:
    errors = [
        row[key] for key in ("linear_embedding_missed", "linear_vector_missed") if not math.isnan(row[key])
    ]
    if not errors:
        return Rating(NOT_APPLICABLE)
    worst = max(errors)
    if worst < NEARLY:
        return Rating(PARTIAL, "nearly") if worst else Rating(YES, "exact")
    return Rating(NO, f"error {100 * min(1, worst):.0f}%")


def _norm(row: Row) -> Rating:
    change = row["norm_change"]
    if math.isnan(change):
        return Rating(NOT_APPLICABLE)
    return Rating(NO, f"± {100 * change:.0f}%") if change else Rating(YES, "exact")


def _orthogonal(row: Row) -> Rating:
    entry = row["orthogonality"]
    if math.isnan(entry):
        return Rating(NOT_APPLICABLE)
    return (
        Rating(NO, "not linear" if math.isinf(entry) else f"off by {format_compact(entry)}")
        if entry
        else Rating(YES, "exact")
    )


def _bounded(row: Row) -> Rating:
    if math.isnan(row["largest_change"]):
        return Rating(NO, "not a number")
    if row["grows_with"] == "nothing":
        return Rating(YES, f"± {_amount(row, row['largest_change'])}")
    words = row["grows_with"].replace("positions and tokens", "both")
    return Rating(NO, f"{words} ↑ {_amount(row, row['largest_change'])}")


def _decay(row: Row) -> Rating:
    sign = {"falls": YES, "envelope falls": PARTIAL}.get(row["decay"], NO)
    text = row["decay"].replace("envelope falls", "envelope").replace("no", "no decay")
    return Rating(sign, f"{text} in a layer" if row["curves"] > 1 and row["decay"] == "flat" else text)


def _beyond(multiple: int) -> Callable[[Row], Rating]:
    def of(row: Row) -> Rating:
        kind, visible, excess = (
            row[f"{key}_{multiple}x"] for key in ("behavior", "visible_fraction", "excess")
        )
        if kind == UNDEFINED:
            return Rating(NO, BEHAVIORS[kind])
        text = BEHAVIORS[kind]
        if kind != HIDDEN and visible < 1:
            text += f" {100 * visible:.0f}%" if visible >= 0.01 else " <1%"
        if excess <= EXCESS:
            return Rating(YES, text)
        return Rating(PARTIAL, f"{text} +{_amount(row, excess)}")

    return of


def _axial_2d(row: Row) -> Rating:
    if not row["axial_2d"]:
        return Rating(NOT_APPLICABLE)
    return Rating(YES, "relative") if row["axial_2d_shift"] == 0 else Rating(PARTIAL, "absolute")


COLUMNS: Sequence[Column] = (
    Column(
        "order\nsensitivity",
        "largest change of a layer's output at the last token if the tokens before it are permuted, relative to the root mean square of its outputs",
        _order,
    ),
    Column(
        "source of\npositions",
        "‘trained’: other values of the parameters change logits, by more than a factor for each head; ‘formula’: they do not; ‘random’: positions are drawn in each step of training",
        _source,
    ),
    Column(
        "positions\ndistinct",
        "smallest difference (nats) between the logits of two of 64 positions if all tokens are equal, or the percentage of pairs of positions with equal logits",
        _unique,
    ),
    Column(
        "distances in\nembeddings",
        "smallest distance between the position embeddings of two of 64 positions / smallest distance between the embeddings of two of 50 tokens at any of these positions",
        _distances,
    ),
    Column(
        "relative:\nonly m - n",
        "‘off by’: largest change of a logit (nats) if all positions are shifted by the same number; ‘index’: a shift changes nothing, but logits at the same distance differ by up to this much, because they also depend on the indices of the tokens; ‘except mask’: a shift changes nothing, but some pairs at a distance are masked and others are not",
        _relative,
    ),
    Column(
        "linear\nstep",
        "whether one matrix for each k maps the position embedding of p, or a query or key transformed at p, to that of p + k; ‘error’: of a fitted matrix at other positions, relative to the standard deviation of the targets",
        _linear,
    ),
    Column(
        "norm of\nq, k kept",
        "largest relative change of the norm of a query or key; a constant factor counts as a change",
        _norm,
    ),
    Column(
        "orthogonal\nmap of q, k",
        "largest entry of |AᵀA - I| for the matrix A that transforms queries or keys at a position; ‘not linear’: there is no such matrix",
        _orthogonal,
    ),
    Column(
        "bounded",
        "largest change of a logit by the scheme up to 16 times the training length (nats); ‘↑’: the change keeps growing with positions, with the number of tokens, or with both",
        _bounded,
    ),
    Column(
        "decays with\ndistance",
        "whether the mean logit of equal vectors falls with distance; ‘envelope’: it rises at some distances, but its largest value from a distance on falls; ‘flat’: it is constant, or constant in a layer; ‘no decay’: none of these (the figure of decay has the curves)",
        _decay,
    ),
    Column(
        "at 4 × the\ntrain. length",
        "whether the logits of the more distant half of the keys are constant, changing with position, masked, undefined or independent of positions; ‘%’: percentage of these keys that are visible in some layer, if not all; ‘+’: the largest number of nats, if it is more than 0.1, by which the logit of any visible key, near or distant, leaves the range of logits at the training length",
        _beyond(4),
    ),
    Column("at 16 × the\ntrain. length", "likewise", _beyond(16)),
    Column(
        "in two\ndimensions",
        "for schemes that act on single vectors, with half of the dimensions for rows and half for columns; ‘relative’: a shift of all rows and columns changes no logit; ‘absolute’: it changes logits",
        _axial_2d,
    ),
    Column("parameters", "at this size", lambda row: Rating("", f"{row['parameters']:,}")),
)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Sorts schemes by the parts of the model that they act on, then by name."""
    return sorted(rows, key=lambda row: (_family(row), row["scheme"]))


def _family(row: Row) -> tuple[int, str]:
    order = ("nothing", "embeddings", "q and k", "logits", "attention")
    first = row["acts_on"].split(", ")[0]
    return (order.index(first) if first in order else len(order), row["acts_on"])
