"""Effective length: the longest context at which a measure keeps a stated part of its value at the training length.

One number for what curves by length show, as in RULER (arXiv:2404.06654), whose threshold is the score of another model,
and NoLiMa (arXiv:2502.05167), whose threshold is 85% of the model's own score at short contexts. Here the base is the
same model at its training length:

    loss: loss(L) <= loss(training length) + 0.1 nats per token, of the same targets
    retrieval: score(L) >= 85%, or 50%, of score(training length)

The length is where the measure first crosses the threshold on the way up from the training length, interpolated linearly
over the logarithm of the length; a later recovery does not count. It is infinite if the measure never crosses ("> 1024"),
and the last length with a number if a longer one has none. The interval is all lengths at which the paired difference
from the threshold is not significant: between the crossings of the lower and of the upper ends of its intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from posbench.report.tables.caption_text import left_out, status_note
from posbench.report.tables.captions import caption
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import Metric, nats_per_token
from posbench.report.tables.selection import (
    SERIES_COLUMNS,
    conclusive,
    ordered_series,
    propagate_gate,
    series_label,
)
from posbench.report.tables.summary import CLUSTER, NO_INTERVAL, aggregate, metric_sums, paired_intervals
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY
from posbench.results.rows import STATUSES
from posbench.results.statistics import Interval

NOTE = (
    "Effective length: the longest context in tokens up to which loss or score stays within the threshold, interpolated "
    "over the logarithm of the length."
)
NOTE_OF_TABLE = f"{NOTE} > N: at every measured length."
UNKNOWN = "?"
NOTE_OF_UNKNOWN = (
    f"{UNKNOWN}: this end of the interval is unknown, because the lengths beyond have no interval."
)


@dataclass(frozen=True)
class Threshold:
    """The condition of an effective length on a measure, relative to its value at the training length.

    Attributes:
        share: smallest share of a score, 0 to 1; None for a loss.
        nats: largest increase of a loss per token.
    """

    share: float | None = None
    nats: float = 0.1

    @property
    def label(self) -> str:
        """A description for headers and legends."""
        return f"loss within {self.nats:g} nats" if self.share is None else f"{self.share:.0%} of score at 1×"


COLUMNS = [
    *SERIES_COLUMNS,
    "threshold",
    "estimate",
    "low",
    "high",
    "longest",
    "interval_method",
    "seeds",
    "seeds_left_out",
    "status",
    "end",
]
LOSS = (Threshold(),)
SHARES = (Threshold(0.85), Threshold(0.5))


def effective_lengths(rows: pd.DataFrame, metric: Metric, threshold: Threshold) -> pd.DataFrame:
    """Returns a line per series: estimate, low and high in tokens, possibly infinite, and what they are computed from.

    A series without a number at its training length, or that has not learned the task, has NaN. So has a series with an
    extension whose accuracy at the training length is below the gate: it can keep half of an accuracy at chance at every
    length. `seeds` counts the seeds with a number at every length up to the effective one.

    Args:
        rows: of one protocol and setting, with lengths from the training length on.
        metric: a loss for a threshold in nats, else a score.
    """
    train_len = int(rows["train_len"].iat[0])
    rows = propagate_gate(rows[rows["eval_len"] >= train_len])
    at_home = rows[rows["eval_len"] == train_len]
    at_start = at_home.groupby(SERIES_COLUMNS, observed=True)["train_seed"].nunique()
    # Seeds that have not learned the task are left out, as at longer lengths of other tables; without others there is no number.
    failed = rows["status"] == "not_learned"
    others = rows.assign(passed=~failed).groupby(SERIES_COLUMNS, observed=True)["passed"].transform("any")
    unlearned = set(rows.loc[failed, SERIES_COLUMNS].itertuples(index=False, name=None))
    rows = rows[~failed | ~others]
    numbers = aggregate(rows, metric)
    margins = _margins(rows, metric, threshold, train_len)
    lines = []
    for (scheme, extension), part in numbers.sort_values("eval_len").groupby(SERIES_COLUMNS, observed=True):
        lengths = part["eval_len"].tolist()
        home = part.iloc[0]
        found = [margins.get((scheme, extension, length), NO_INTERVAL) for length in lengths]
        bounded = _bounded(found)
        below = metric.name in GATE_METRICS and home["estimate"] < MIN_ACCURACY
        judged = (
            lengths[0] == train_len and home["status"] != "not_learned" and home["seeds"] > 0 and not below
        )
        ends = {
            name: _crossing(lengths[:count], [getattr(one, name) for one in found[:count]])
            if judged
            else math.nan
            for name, count in (("estimate", len(found)), ("low", bounded), ("high", bounded))
        }
        # An end that is not found where there are intervals may lie at a length without one.
        ends |= {
            name: math.nan for name in ("low", "high") if bounded < len(found) and math.isinf(ends[name])
        }
        # Of the lengths that the estimate depends on: up to the first at or beyond it.
        used = [
            bool(one.seeds) and past < ends["estimate"]
            for past, one in zip([0, *lengths], found, strict=False)
        ]
        seeds = min(
            [one.seeds for one, counts in zip(found, used, strict=True) if counts], default=home["seeds"]
        )
        left = int(at_start.get((scheme, extension), 0) - seeds) if judged else 0
        # As in other tables, the status of a number without some seeds is theirs.
        worst = max([home["status"], *part["status"][used]], key=STATUSES.index)
        theirs = "not_learned" if below or (scheme, extension) in unlearned else worst
        # The method of a longer length: at the training length a loss differs from itself by nothing.
        method = found[-1].method or found[0].method
        lines.append(
            {"scheme": scheme, "extension": extension, "threshold": threshold.label, **ends}
            | {"longest": lengths[-1], "interval_method": method, "seeds": seeds}
            | {"seeds_left_out": left, "status": theirs if left or not judged else _reason(part)}
            | {"end": _reason(part)}
        )
    return pd.DataFrame(lines, columns=COLUMNS)


def _margins(rows: pd.DataFrame, metric: Metric, threshold: Threshold, train_len: int) -> dict:
    """Returns by series and length how far the measure is inside the threshold, with its interval."""
    targets = [*SERIES_COLUMNS, "train_seed", *CLUSTER]
    sums = metric_sums(rows, metric, ["eval_len", *targets], conclusive(rows))[["numerator", "denominator"]]
    home = sums[sums.index.get_level_values("eval_len") == train_len].droplevel("eval_len")
    other = sums.reset_index("eval_len")
    if threshold.share is None:
        sides, inside = (home.add_suffix("_a"), other.add_suffix("_b")), threshold.nats
    else:
        home = home.assign(numerator=home["numerator"] * threshold.share)
        sides, inside = (home.add_suffix("_b"), other.add_suffix("_a")), 0.0
    pairs = sides[0].join(sides[1], how="inner")
    length = "eval_len_b" if threshold.share is None else "eval_len_a"
    pairs = pairs.rename(columns={length: "eval_len"}).set_index("eval_len", append=True)
    return {
        key: replace(one, estimate=one.estimate + inside, low=one.low + inside, high=one.high + inside)
        for key, one in paired_intervals(pairs, [*SERIES_COLUMNS, "eval_len"]).items()
    }


def _bounded(margins: Sequence[Interval]) -> int:
    """Returns the number of lengths before the first, past the training length, that has an estimate and no interval."""
    without = (math.isnan(one.low) and not math.isnan(one.estimate) for one in margins[1:])
    return next((index for index, missing in enumerate(without, 1) if missing), len(margins))


def _crossing(lengths: Sequence[int], margins: Sequence[float]) -> float:
    """Returns the length at which the margin falls below zero; infinite if it never does, NaN without margins."""
    if math.isnan(margins[0]) and all(map(math.isnan, margins)):
        return math.nan
    last = (lengths[0], 0.0 if math.isnan(margins[0]) else margins[0])
    for length, margin in zip(lengths[1:], margins[1:], strict=True):
        if math.isnan(margin) or last[1] < 0:
            return float(last[0])
        if margin < 0:
            fraction = last[1] / (last[1] - margin)
            return last[0] * (length / last[0]) ** fraction
        last = (length, margin)
    return float(last[0]) if last[1] < 0 else math.inf


def _reason(part: pd.DataFrame) -> str:
    """Returns the status of the first length without a number."""
    missing = part.loc[part["estimate"].isna(), "status"]
    return str(missing.iat[0]) if len(missing) else "ok"


def format_length(length: float, longest: int) -> str:
    """Returns a length in whole tokens, or "> N" for one beyond the longest."""
    return f"> {longest}" if math.isinf(length) else f"{length:.0f}"


def effective_length_table(
    rows: pd.DataFrame, metric: Metric, order: Sequence[str], name: str
) -> Table | None:
    """Returns the table of a metric, a row per series and a column per threshold; None without longer lengths."""
    train_len = int(rows["train_len"].iat[0])
    lengths = rows["eval_len"].unique()
    if train_len not in lengths or max(lengths) <= train_len:
        return None
    loss = metric.name == "bits_per_byte"
    metric = nats_per_token(metric) if loss else metric
    thresholds = LOSS if loss else SHARES
    parts = [effective_lengths(rows, metric, one) for one in thresholds]
    cells = [
        {(line.scheme, line.extension): length_cell(line) for line in part.itertuples()} for part in parts
    ]
    shown = aggregate(rows, metric)[lambda numbers: numbers["eval_len"] >= train_len]
    unknown = any(UNKNOWN in cell.text for column in cells for cell in column.values())
    notes = [NOTE_OF_TABLE, NOTE_OF_UNKNOWN] if unknown else [NOTE_OF_TABLE]
    return Table(
        name=name,
        title=f"Effective length in tokens, by {metric.label}",
        caption=caption(
            [(rows, with_intervals_of(parts[0], shown), metric)],
            *notes,
            intervals="intervals of the effective length",
            notes=False,
        ),
        header=["scheme", *(one.label for one in thresholds)],
        body=[
            [TableCell(series_label(*series)), *(column[series] for column in cells)]
            for series in ordered_series(parts[0], order)
        ],
        numbers=pd.concat(parts).assign(metric=metric.name, train_len=train_len),
    )


def with_intervals_of(lengths: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Returns the numbers of series that have an effective length, with the seeds and interval method of that length."""
    known = lengths[lengths["estimate"].notna()]
    own = (known if len(known) else lengths)[[*SERIES_COLUMNS, "seeds", "interval_method"]]
    per_seed = numbers["n"] // numbers["seeds"].clip(lower=1)
    numbers = numbers.assign(n=per_seed).drop(columns=["seeds", "interval_method"])[numbers["seeds"] > 0]
    numbers = numbers.merge(own, on=SERIES_COLUMNS)
    return numbers.assign(n=numbers["n"] * numbers["seeds"])


def length_cell(line: object) -> TableCell:
    """Returns the cell of a line of `effective_lengths`: the length, its interval and a footnote."""
    names = ("estimate", "low", "high", "longest", "status", "seeds", "seeds_left_out", "end")
    estimate, low, high, longest, status, seeds, missing, end = (getattr(line, name) for name in names)
    if math.isnan(estimate):
        return TableCell("not learned" if status == "not_learned" else "–", note=f"{status_note(status)}.")
    note = "" if status == "ok" else f"{status_note(status)}."
    if missing:
        note = left_out(missing, seeds + missing, status)
        if end not in ("ok", status) and estimate < longest:
            note += f" {status_note(end)}."
    ends = [UNKNOWN if math.isnan(length) else format_length(length, longest) for length in (low, high)]
    text = format_length(estimate, longest)
    if {*ends} not in ({text}, {UNKNOWN}):
        text += f" [{', '.join(ends)}]"
    return TableCell(text, note=note if missing or estimate < longest else "")
