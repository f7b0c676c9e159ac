"""The card: what each number says of a property, in a few letters and one of four marks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posbench.properties.length_behavior import HIDDEN, POSITION_BLIND, UNDEFINED
from posbench.properties.measure import Row
from posbench.properties.ratings import NO, NOT_APPLICABLE, PARTIAL, YES, Rating, format_compact

NEARLY = 1e-3  # of what is to be reached
EXCESS = 0.1  # nats beyond the range within the training length


@dataclass(frozen=True)
class Column:
    title: str  # two lines
    meaning: str
    of: Callable[[Row], Rating]


def _position_blind(row: Row) -> bool:
    return row["behavior_1x"] == POSITION_BLIND


def _order(row: Row) -> Rating:
    return (
        Rating(YES, format_compact(row["order_sensitivity"]))
        if row["order_sensitivity"]
        else Rating(NO, "none")
    )


def _source(row: Row) -> Rating:
    return Rating(
        {"formula": YES, "trained": PARTIAL}.get(row["position_source"], NO), row["position_source"]
    )


def _unique(row: Row) -> Rating:
    if row["indistinguishable_fraction"] == 0:
        return Rating(YES, f"≥ {format_compact(row['min_logit_difference'])}")
    return (
        Rating(NO, "all alike")
        if row["indistinguishable_fraction"] == 1
        else Rating(PARTIAL, f"{100 * row['indistinguishable_fraction']:.0f}% alike")
    )


def _distances(row: Row) -> Rating:
    if math.isnan(row["position_distance"]):
        return Rating(NOT_APPLICABLE)
    both = (row["position_distance"], row["token_distance"])
    return Rating(YES if min(both) > 0 else NO, " / ".join(map(format_compact, both)))


def _relative(row: Row) -> Rating:
    if _position_blind(row):
        return Rating(NOT_APPLICABLE, "position_blind")
    if not row["shift_change"] <= 0:
        return Rating(NO, f"off {format_compact(row['shift_change'])}")
    spread = row["diagonal_spread"]
    if spread == 0:
        return Rating(YES, "exact")
    return Rating(PARTIAL, "not the mask" if math.isinf(spread) else f"index {format_compact(spread)}")


def _linear(row: Row) -> Rating:
    missed = [
        row[key] for key in ("linear_embedding_missed", "linear_vector_missed") if not math.isnan(row[key])
    ]
    if not missed:
        return Rating(NOT_APPLICABLE)
    worst = max(missed)
    if worst < NEARLY:
        return Rating(PARTIAL, "nearly") if worst else Rating(YES, "exact")
    return Rating(NO, f"misses {100 * min(1, worst):.0f}%")


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
        Rating(NO, "not linear" if math.isinf(entry) else f"off {format_compact(entry)}")
        if entry
        else Rating(YES, "exact")
    )


def _bounded(row: Row) -> Rating:
    if row["grows_with"] == "nothing":
        return Rating(YES, f"± {format_compact(row['largest_change'])}")
    words = row["grows_with"].replace("positions and tokens", "both")
    return Rating(NO, f"{words} ↑ {format_compact(row['largest_change'])}")


def _decay(row: Row) -> Rating:
    sign = {"falls": YES, "envelope falls": PARTIAL}.get(row["decay"], NO)
    words = row["decay"].replace("envelope falls", "envelope")
    return Rating(sign, f"{words}, a layer" if row["curves"] > 1 and row["decay"] == "flat" else words)


def _past(multiple: int) -> Callable[[Row], Rating]:
    def of(row: Row) -> Rating:
        kind, seen, excess = (row[f"{key}_{multiple}x"] for key in ("behavior", "visible_fraction", "excess"))
        if kind == UNDEFINED:
            return Rating(NO, kind)
        if kind in {HIDDEN, POSITION_BLIND}:
            return Rating(YES, kind)
        words = kind if seen == 1 else f"{100 * seen:.1g}% seen"
        if excess <= EXCESS:
            return Rating(YES, words)
        return Rating(PARTIAL, f"{words} +{format_compact(excess)}")

    return of


def _axial_2d(row: Row) -> Rating:
    if not row["axial_2d"]:
        return Rating(NOT_APPLICABLE)
    return Rating(YES, "relative") if row["axial_2d_shift"] == 0 else Rating(PARTIAL, "absolute")


COLUMNS: Sequence[Column] = (
    Column(
        "order\nsensitivity",
        "change of the last output, in parts of its size, when one layer's earlier tokens change places",
        _order,
    ),
    Column("comes\nfrom", "a formula, training, or a new draw in each step of training", _source),
    Column(
        "positions\ntold apart",
        "least difference (nats) between what a query says of two of 64 positions where one token stands everywhere, or how many of their pairs are alike",
        _unique,
    ),
    Column(
        "distances in\nembeddings",
        "least |PE(p) - PE(p')| / least distance of two different tokens with their positions, of 50 tokens at 64 positions",
        _distances,
    ),
    Column(
        "relative:\nm - n alone",
        "largest change of a logit (nats) under a shift of all positions; 'index' and 'mask': it holds for positions, and what follows from a token's index differs by so much",
        _relative,
    ),
    Column(
        "linear\nstep",
        "whether one matrix takes PE(p), or a turned vector, to p + k: what it misses of positions that it was not fitted to",
        _linear,
    ),
    Column("norm of\nq, k kept", "largest relative change, constant factors among them", _norm),
    Column("orthogonal\nmap of q, k", "largest entry of AᵀA - I", _orthogonal),
    Column(
        "bounded",
        "largest change of a logit to 16 times the training length (nats); open circle: it grows on, with positions or with the number of tokens",
        _bounded,
    ),
    Column(
        "decays with\ndistance",
        "the curves of the other figure: always falls, only its envelope does, flat in some layer, or neither",
        _decay,
    ),
    Column(
        "at 4 times\nits length",
        "what is said of the farther half of the keys; '+': by how many nats logits leave the range that they have within the training length",
        _past(4),
    ),
    Column("at 16 times\nits length", "the same", _past(16)),
    Column(
        "in two\ndimensions",
        "half of the dimensions for rows, half for columns, where the scheme acts on single vectors; whether logits stay under a shift",
        _axial_2d,
    ),
    Column("parameters", "at this size", lambda row: Rating("", f"{row['parameters']:,}")),
)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Schemes that act on the same parts stand together."""
    return sorted(rows, key=lambda row: (_family(row), row["scheme"]))


def _family(row: Row) -> tuple[int, str]:
    order = ("nothing", "embeddings", "q and k", "logits", "attention")
    first = row["acts_on"].split(", ")[0]
    return (order.index(first) if first in order else len(order), row["acts_on"])
