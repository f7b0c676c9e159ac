"""Ranking of many series at one length, as ranges of ranks and groups, since neighbours often do not differ significantly.

Two series differ significantly if their corrected p is below 0.05 (`pairwise_tests`).
"""

from typing import Any

import pandas as pd

from posbench.report.tables.caption_text import capital
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_cell, multiple_of
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import Metric
from posbench.report.tables.pairwise_tests import ALPHA
from posbench.report.tables.selection import series_label

NOTE = (
    "A group starts at the best series that differs significantly from the first of the group above "
    f"(p < {ALPHA:g} after Benjamini and Hochberg's correction for all pairs at this length). Series of one group can "
    "differ, and neighbours in two groups need not."
)
RANKS = (
    "Ranks: the first number is 1 plus the number of significantly better series; the second is the number of series, this "
    "one included, that are not significantly worse."
)


def not_told_apart(found: pd.DataFrame, label: str, length: int) -> list[str]:
    """Returns the series with a number that do not differ significantly from one of them.

    Equal ones and those without a test, such as those with too few seeds in common, are included.
    """
    apart = _apart(_tested(found, length))
    both = found[(found["eval_len"] == length) & found["seeds"].notna()]
    pairs = both[["a", "b"]].itertuples(index=False, name=None)
    return [b if a == label else a for a, b in pairs if label in (a, b) and frozenset((a, b)) not in apart]


def _tested(found: pd.DataFrame, length: int) -> pd.DataFrame:
    return found[(found["eval_len"] == length) & found["p_value"].notna()]


def _apart(tested: pd.DataFrame) -> set[frozenset[str]]:
    """Returns the pairs that differ significantly."""
    apart = tested.loc[tested["p_adjusted"] < ALPHA, ["a", "b"]]
    return {frozenset(pair) for pair in apart.itertuples(index=False, name=None)}


def ranking(numbers: pd.DataFrame, found: pd.DataFrame, metric: Metric, length: int) -> pd.DataFrame:
    """Returns a line per tested series, the best first: its summary, first_rank, last_rank and group, from 1.

    Args:
        numbers: a summary by length.
        found: tests of all pairs, as from `pairwise_tests`.
    """
    tested = _tested(found, length)
    apart = _apart(tested)
    at = numbers[numbers["eval_len"] == length]
    labels = [series_label(*pair) for pair in zip(at["scheme"], at["extension"], strict=True)]
    at = at.assign(label=labels)[[label in {*tested["a"], *tested["b"]} for label in labels]]
    at = at.sort_values("estimate", ascending=metric.lower_is_better is not False, kind="stable")
    names = at["label"].tolist()
    leader, group, groups = "", 0, []
    for name in names:
        if not leader or frozenset((leader, name)) in apart:
            leader, group = name, group + 1
        groups.append(group)
    above = [
        sum(frozenset((name, other)) in apart for other in names[:place]) for place, name in enumerate(names)
    ]
    below = [
        sum(frozenset((name, other)) in apart for other in names[place + 1 :])
        for place, name in enumerate(names)
    ]
    first, last = [1 + count for count in above], [len(names) - count for count in below]
    return at.assign(first_rank=first, last_rank=last, group=groups)


def ranking_table(
    rows: pd.DataFrame, numbers: pd.DataFrame, found: pd.DataFrame, metric: Metric, name: str
) -> Table | None:
    """Returns the ranking at the longest length with tests; None without tests."""
    lengths = found.loc[found["p_value"].notna(), "eval_len"]
    if lengths.empty:
        return None
    length = int(lengths.max())
    ranked = ranking(numbers, found, metric, length)
    body = [
        [
            TableCell(line.label),
            TableCell(
                f"{line.first_rank}"
                if line.first_rank == line.last_rank
                else f"{line.first_rank}–{line.last_rank}"
            ),
            TableCell(f"{line.group}"),
            format_cell(line),
        ]
        for line in ranked.itertuples()
    ]
    train_len = int(rows["train_len"].iat[0])
    return Table(
        name=name,
        title=f"{capital(metric.label)} at {length} tokens ({multiple_of(length, train_len)}): ranking",
        caption=caption(
            [(rows, ranked, metric)],
            not_ranked(numbers, ranked, length),
            RANKS,
            NOTE,
            intervals="intervals",
            notes=False,
        ),
        header=["scheme", "ranks", "group", metric.label],
        body=body,
        numbers=ranked.drop(columns="label").assign(metric=metric.name, train_len=train_len),
    )


def not_ranked(numbers: pd.DataFrame, ranked: pd.DataFrame, length: int) -> str:
    """Returns the series without a test, with the reason; '' if there are none."""
    at = numbers[numbers["eval_len"] == length]
    labels = {series_label(line.scheme, line.extension): line for line in at.itertuples()}
    missing = [
        f"{label} ({_why(line)})" for label, line in labels.items() if label not in set(ranked["label"])
    ]
    return f"Not ranked: {', '.join(missing)}." if missing else ""


def _why(line: Any) -> str:
    if pd.notna(line.estimate):
        return "no test"
    return "no number" if line.status == "ok" else line.status.replace("_", " ")
