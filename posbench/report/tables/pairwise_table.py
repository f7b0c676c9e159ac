"""Printed tables of pairwise tests, at the middle and the longest of the lengths with tests.

Of many series, they show the best against all others and each against the next; the csv has all pairs at all lengths.
"""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd

from posbench.report.tables.caption_text import capital, cluster_name
from posbench.report.tables.captions import caption
from posbench.report.tables.formatting import format_interval, format_number, multiple_of
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import Metric
from posbench.report.tables.pairwise_tests import ALPHA, NOT_SIGNIFICANT
from posbench.report.tables.selection import series_label
from posbench.results.statistics import MIN_SEEDS

ALL = 28  # pairs of eight series: up to this number, all are printed
PRINTED = 60  # largest number of printed pairs; beyond it, only comparisons with the best


def pairwise_table(
    rows: pd.DataFrame, numbers: pd.DataFrame, found: pd.DataFrame, metric: Metric, name: str
) -> Table | None:
    """Returns the tables of pairwise tests, one per printed length; None without tests.

    Args:
        numbers: the summary of the rows by length.
        found: the tests of the rows, as from `pairwise_tests`.
    """
    lengths = sorted(found.loc[found["p_value"].notna(), "eval_len"].unique())
    if not lengths:
        return None
    chosen = sorted({lengths[(len(lengths) - 1) // 2], lengths[-1]})
    tables = [_at_length(rows, numbers, found, metric, name, length) for length in chosen]
    first, *others = tables
    return replace(first, name=name, numbers=found, more=others)


def _at_length(
    rows: pd.DataFrame, numbers: pd.DataFrame, found: pd.DataFrame, metric: Metric, name: str, length: int
) -> Table:
    here = found[found["eval_len"] == length]
    at = numbers[numbers["eval_len"] == length].sort_values(
        "estimate", ascending=metric.lower_is_better is not False, kind="stable", na_position="last"
    )
    ranked = [series_label(*pair) for pair in at[["scheme", "extension"]].itertuples(index=False, name=None)]
    lines = {frozenset((line.a, line.b)): line for line in here.itertuples()}
    pairs = [
        (a, b)
        for a, b in chosen_pairs(ranked)
        if a == ranked[0] or pd.notna(lines[frozenset((a, b))].p_value)
    ]
    clusters = cluster_name(rows["task"].iat[0])
    body = []
    for a, b in pairs:
        line = lines[frozenset((a, b))]
        sign = 1 if line.a == a else -1
        low, high = (line.low, line.high) if sign > 0 else (-line.high, -line.low)
        texts = [
            f"{a} against {b}",
            format_number(sign * line.a_minus_b),
            format_interval(low, high),
            _p(line.p_adjusted),
        ]
        texts += [_count(line.n_docs), _count(line.seeds)]
        body.append([*map(TableCell, texts), TableCell(line.conclusion, best=" beats " in line.conclusion)])
    train_len = int(rows["train_len"].iat[0])
    kinds = here.loc[here["p_value"].notna(), "interval_method"].unique()
    shown = numbers[numbers["eval_len"] == length]
    shown = shown.assign(interval_method=np.resize(kinds, len(shown)) if len(kinds) else "")
    return Table(
        name=f"{name}-{length}",
        title=f"{capital(metric.label)} at {length} tokens ({multiple_of(length, train_len)}): pairwise comparison",
        caption=caption(
            [(rows, shown, metric)],
            *_reading_guide(here, ranked, pairs, clusters, metric),
            intervals="intervals of the differences",
        ),
        header=["a against b", "a – b", "95% interval", "adjusted p", clusters, "seeds", "conclusion"],
        body=body,
        numbers=here,
        words=["conclusion"],
    )


def chosen_pairs(ranked: list[str]) -> list[tuple[str, str]]:
    """Returns the printed pairs of some series, ranked from the best.

    All pairs of few series; of many, the best with all others and each with the next.
    """
    pairs = [(a, b) for place, a in enumerate(ranked) for b in ranked[place + 1 :]]
    if len(pairs) <= ALL:
        return pairs
    best = [pair for pair in pairs if pair[0] == ranked[0]]
    nexts = list(itertools.pairwise(ranked[1:]))
    return best + (nexts if len(best) + len(nexts) <= PRINTED else [])


def _reading_guide(
    here: pd.DataFrame,
    ranked: list[str],
    pairs: list[tuple[str, str]],
    clusters: str,
    metric: Metric,
) -> list[str]:
    """Sentences about the printed pairs, the unbeaten series and the tests."""
    tested = here[here["p_value"].notna()]
    beaten = {
        line.conclusion.split(" beats ")[1] for line in tested.itertuples() if " beats " in line.conclusion
    }
    compared = set(tested["a"]) | set(tested["b"])
    unbeaten = ", ".join(name for name in ranked if name in compared and name not in beaten)
    significant = int((tested["conclusion"] != NOT_SIGNIFICANT).sum())
    methods = " ".join(tested["interval_method"].unique())
    tests = []
    if "two-level" in methods:
        tests.append(f"two-level t over seeds and {clusters}, paired by both")
    if "Student" in methods:
        tests.append(f"Student's t over seeds, paired by seed (results hold for these {clusters})")
    if "cluster" in methods:
        tests.append(
            f"cluster t adjusted for skewness over {clusters}, paired by {clusters} (with fewer than {MIN_SEEDS} seeds, "
            "results hold for these models, not for other trainings)"
        )
    return [
        f"Shown: {_shown(ranked, pairs)}.",
        f"Of {len(tested)} pairs tested at this length, {significant} differ significantly.",
        f"Not beaten: {unbeaten}.",
        f"Test: {'; '.join(tests)}.",
        f"Significant: p < {ALPHA:g} after Benjamini and Hochberg's correction for these {len(tested)} pairs (adjusted p). It "
        "depends on the series of the table: in another table, the same pair can differ significantly or not. Intervals are "
        f"not corrected and can exclude 0 without significance. {capital(NOT_SIGNIFICANT)} does not mean equality.",
    ]


def _shown(ranked: list[str], pairs: list[tuple[str, str]]) -> str:
    """Returns in words which pairs of the ranked series are printed."""
    every = len(ranked) * (len(ranked) - 1) // 2
    if len(pairs) == every:
        return "all pairs"
    others = [pair for pair in pairs if pair[0] != ranked[0]]
    if every <= ALL:
        words = ", and all other pairs that were tested" if others else ""
    else:
        words = ", then each against the next where that was tested" if others else ""
    return f"the best against all others{words} (the csv has all pairs)"


def _p(p: float) -> str:
    return "–" if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _count(value: float) -> str:
    return "–" if pd.isna(value) else f"{int(value)}"
