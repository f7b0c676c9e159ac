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


def _order(row: Row) -> Rating:
    change = row["order_sensitivity"]
    return Rating(YES if change > 0 else NO, format_compact(change) if change else "none")


def _source(row: Row) -> Rating:
    return Rating(
        {"formula": YES, "trained": PARTIAL}.get(row["position_source"], NO), row["position_source"]
    )


def _unique(row: Row) -> Rating:
    if row["indistinguishable_fraction"] == 0:
        return Rating(YES, f"≥ {format_compact(row['min_logit_difference'])}")
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
        return Rating(NO, f"off by {format_compact(row['shift_change'])}")
    spread = row["diagonal_spread"]
    if spread == 0:
        return Rating(YES, "exact")
    return Rating(PARTIAL, "except mask" if math.isinf(spread) else f"index: {format_compact(spread)}")


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
        return Rating(YES, f"± {format_compact(row['largest_change'])}")
    words = row["grows_with"].replace("positions and tokens", "both")
    return Rating(NO, f"{words} ↑ {format_compact(row['largest_change'])}")


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
        if kind in {HIDDEN, POSITION_BLIND}:
            return Rating(YES, BEHAVIORS[kind])
        text = BEHAVIORS[kind] if visible == 1 else f"{100 * visible:.1g}% visible"
        if excess <= EXCESS:
            return Rating(YES, text)
        return Rating(PARTIAL, f"{text} +{format_compact(excess)}")

    return of


def _axial_2d(row: Row) -> Rating:
    if not row["axial_2d"]:
        return Rating(NOT_APPLICABLE)
    return Rating(YES, "relative") if row["axial_2d_shift"] == 0 else Rating(PARTIAL, "absolute")


COLUMNS: Sequence[Column] = (
    Column(
        "order\nsensitivity",
        "relative change of a layer's last output if the earlier tokens are permuted",
        _order,
    ),
    Column("source of\npositions", "a formula, training, or random draws in each step of training", _source),
    Column(
        "positions\ndistinct",
        "smallest difference between the logits of two of 64 positions (nats) if all tokens are equal, or the fraction of equal pairs",
        _unique,
    ),
    Column(
        "distances in\nembeddings",
        "smallest |PE(p) - PE(p')| / smallest distance between two different tokens with positions, of 50 tokens at 64 positions",
        _distances,
    ),
    Column(
        "relative:\nonly m - n",
        "largest change of a logit (nats) if all positions are shifted; ‘index’ and ‘mask’: relative except for effects of token indices, which change logits by this much, or of the mask",
        _relative,
    ),
    Column(
        "linear\nstep",
        "whether one matrix maps PE(p), or a transformed vector at p, to p + k: its error at positions that it was not fitted to",
        _linear,
    ),
    Column("norm of\nq, k kept", "largest relative change, constant factors included", _norm),
    Column("orthogonal\nmap of q, k", "largest entry of AᵀA - I", _orthogonal),
    Column(
        "bounded",
        "largest change of a logit up to 16 times the training length (nats); ↑: it keeps growing with positions, tokens or both",
        _bounded,
    ),
    Column(
        "decays with\ndistance",
        "whether the logit of equal vectors, or only its envelope, falls with distance (the curves are another figure)",
        _decay,
    ),
    Column(
        "at 4 × the\ntrain. length",
        "logits of the more distant half of the keys: undefined, masked, constant, changing with position, or without positions; ‘+’: nats by which they leave their range at the training length",
        _beyond(4),
    ),
    Column("at 16 × the\ntrain. length", "likewise", _beyond(16)),
    Column(
        "in two\ndimensions",
        "with half of the dimensions for rows and half for columns, for schemes that act on single vectors: whether logits change under a shift",
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
