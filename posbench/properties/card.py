"""The card: what each number says of a property, in a few letters and one of four marks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posbench.properties.lengths import HIDDEN, SILENT, UNDEFINED
from posbench.properties.measure import Row
from posbench.properties.ratings import NEITHER, NO, PARTLY, YES, Mark, short

NEARLY = 1e-3  # of what is to be reached
EXCESS = 0.1  # nats beyond the range within the training length


@dataclass(frozen=True)
class Column:
    title: str  # two lines
    meaning: str
    of: Callable[[Row], Mark]


def _silent(row: Row) -> bool:
    return row["at_1x"] == SILENT


def _order(row: Row) -> Mark:
    return Mark(YES, short(row["order_felt"])) if row["order_felt"] else Mark(NO, "not felt")


def _source(row: Row) -> Mark:
    return Mark({"formula": YES, "trained": PARTLY}.get(row["kind"], NO), row["kind"])


def _unique(row: Row) -> Mark:
    if row["alike"] == 0:
        return Mark(YES, f"≥ {short(row['smallest_difference'])}")
    return Mark(NO, "all alike") if row["alike"] == 1 else Mark(PARTLY, f"{100 * row['alike']:.0f}% alike")


def _distances(row: Row) -> Mark:
    if math.isnan(row["position_distance"]):
        return Mark(NEITHER)
    both = (row["position_distance"], row["token_distance"])
    return Mark(YES if min(both) > 0 else NO, " / ".join(map(short, both)))


def _relative(row: Row) -> Mark:
    if _silent(row):
        return Mark(NEITHER, "silent")
    if not row["shift_change"] <= 0:
        return Mark(NO, f"off {short(row['shift_change'])}")
    spread = row["diagonal_spread"]
    if spread == 0:
        return Mark(YES, "exact")
    return Mark(PARTLY, "not the mask" if math.isinf(spread) else f"index {short(spread)}")


def _linear(row: Row) -> Mark:
    missed = [
        row[key] for key in ("linear_embedding_missed", "linear_vector_missed") if not math.isnan(row[key])
    ]
    if not missed:
        return Mark(NEITHER)
    worst = max(missed)
    if worst < NEARLY:
        return Mark(PARTLY, "nearly") if worst else Mark(YES, "exact")
    return Mark(NO, f"misses {100 * min(1, worst):.0f}%")


def _norm(row: Row) -> Mark:
    change = row["norm_change"]
    if math.isnan(change):
        return Mark(NEITHER)
    return Mark(NO, f"± {100 * change:.0f}%") if change else Mark(YES, "exact")


def _orthogonal(row: Row) -> Mark:
    entry = row["orthogonality"]
    if math.isnan(entry):
        return Mark(NEITHER)
    return (
        Mark(NO, "not linear" if math.isinf(entry) else f"off {short(entry)}")
        if entry
        else Mark(YES, "exact")
    )


def _bounded(row: Row) -> Mark:
    if row["grows_with"] == "nothing":
        return Mark(YES, f"± {short(row['largest_change'])}")
    words = row["grows_with"].replace("positions and tokens", "both")
    return Mark(NO, f"{words} ↑ {short(row['largest_change'])}")


def _decay(row: Row) -> Mark:
    sign = {"falls": YES, "envelope falls": PARTLY}.get(row["decay"], NO)
    words = row["decay"].replace("envelope falls", "envelope")
    return Mark(sign, f"{words}, a layer" if row["curves"] > 1 and row["decay"] == "flat" else words)


def _past(multiple: int) -> Callable[[Row], Mark]:
    def of(row: Row) -> Mark:
        kind, seen, excess = (row[f"{key}_{multiple}x"] for key in ("at", "seen", "excess"))
        if kind == UNDEFINED:
            return Mark(NO, kind)
        if kind in {HIDDEN, SILENT}:
            return Mark(YES, kind)
        words = kind if seen == 1 else f"{100 * seen:.1g}% seen"
        if excess <= EXCESS:
            return Mark(YES, words)
        return Mark(PARTLY, f"{words} +{short(excess)}")

    return of


def _plane(row: Row) -> Mark:
    if not row["plane"]:
        return Mark(NEITHER)
    return Mark(YES, "relative") if row["plane_shift"] == 0 else Mark(PARTLY, "absolute")


COLUMNS: Sequence[Column] = (
    Column(
        "feels\norder",
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
        _plane,
    ),
    Column("parameters", "at this size", lambda row: Mark("", f"{row['parameters']:,}")),
)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Schemes that act on the same parts stand together."""
    return sorted(rows, key=lambda row: (_family(row), row["scheme"]))


def _family(row: Row) -> tuple[int, str]:
    order = ("nothing", "embeddings", "q and k", "logits", "attention")
    first = row["acts_on"].split(", ")[0]
    return (order.index(first) if first in order else len(order), row["acts_on"])
