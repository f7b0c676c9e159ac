"""Paired tests between the series of a table; the difficulty that two series share cancels.

Pairs are seeds and documents (or contexts) that both series have. The correction is that of Benjamini and Hochberg for all
pairs at a length, which aims at an expected share of 5% false ones among the significant differences (a guarantee for
independent or positively dependent tests). Holm's correction controls the chance of any false one. It finds almost no
differences among the thousands of pairs of 80 series with three seeds.
Where there are MIN_SEEDS seeds, two series with fewer in common, as of models below the gate, are not tested: the test over
documents alone leaves out the variance between trainings, and finds differences between equal schemes.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from posbench.report.tables.metrics import Metric
from posbench.report.tables.selection import (
    SERIES_COLUMNS,
    conclusive,
    ordered_series,
    propagate_gate,
    series_label,
)
from posbench.report.tables.summary import CLUSTER, NO_INTERVAL, metric_sums, worst_status
from posbench.results.rows import STATUSES
from posbench.results.statistics import MIN_SEEDS, benjamini_hochberg, paired_interval

COLUMNS = ["eval_len", "a", "b", "a_minus_b", "low", "high", "interval_method", "seeds", "n_docs"]
COLUMNS += ["p_value", "p_adjusted", "conclusion"]
ALPHA = 0.05
NOT_SIGNIFICANT = "no significant difference"
EQUAL = "equal on every document"


def pairwise_tests(rows: pd.DataFrame, metric: Metric, order: Sequence[str] = ()) -> pd.DataFrame:
    """Returns a line per length and pair of series: a - b, its 95% interval, its corrected p, and a conclusion in words.

    Differences are those of the ratios, in nats for metrics that are shown as exponentials. `n_docs` and `seeds` are
    the numbers of documents (or contexts) and seeds that both series have.
    """
    rows = propagate_gate(rows)
    by = ["eval_len", *SERIES_COLUMNS, "train_seed", *CLUSTER]
    sums = metric_sums(rows, metric, by, conclusive(rows))
    worst = worst_status(rows, ["eval_len", *SERIES_COLUMNS]).to_dict()
    empty = sums.iloc[:0]
    series = ordered_series(rows, order)
    enough = min(MIN_SEEDS, rows["train_seed"].nunique())
    lines = []
    for length in sorted(rows["eval_len"].unique()):
        at_length = sums.loc[[length]] if length in sums.index else empty
        numerators, denominators = (
            at_length[side].unstack(SERIES_COLUMNS) for side in ("numerator", "denominator")
        )
        seed_of, document_of = (numerators.index.get_level_values(name) for name in ("train_seed", "doc_id"))
        seed_of, document_of = seed_of.to_numpy(), pd.factorize(document_of)[0]
        held = {key: np.stack([numerators[key], denominators[key]]) for key in numerators}
        present = [key for key in series if (length, *key) in worst]
        for a, b in combinations(present, 2):
            line = {"eval_len": length, "a": series_label(*a), "b": series_label(*b), "p_value": math.nan}
            reasons = [STATUSES[worst[length, *key]] for key in (a, b) if key not in held]
            if a in held and b in held:
                shared = ~np.isnan([*held[a], *held[b]]).any(axis=0)
                interval = NO_INTERVAL
                if shared.any():
                    of_a, of_b = (held[key][:, shared] for key in (a, b))
                    interval = paired_interval(
                        (of_a[0], of_a[1]), (of_b[0], of_b[1]), seed_of[shared], document_of[shared]
                    )
                seeds = len(set(seed_of[shared]))
                if shared.any() and np.array_equal(
                    of_a, of_b
                ):  # often by construction; the correction leaves it out
                    interval = replace(NO_INTERVAL, estimate=interval.estimate)
                    reasons = [EQUAL]
                elif seeds < enough:
                    interval = replace(NO_INTERVAL, estimate=interval.estimate)
                    reasons = [
                        f"fewer than {enough} seeds in common" if seeds else "no seed and document in common"
                    ]
                # Bounds of an interval can exceed the possible range.
                low, high = (
                    (max(interval.low, -1.0), min(interval.high, 1.0))
                    if metric.is_fraction and interval.method
                    else (interval.low, interval.high)
                )
                line |= {"a_minus_b": interval.estimate, "low": low, "high": high}
                line |= {
                    "interval_method": interval.method,
                    "p_value": interval.p_value if interval.method else math.nan,
                }
                line |= {"seeds": seeds, "n_docs": len(set(document_of[shared]))}
            lines.append(line | {"conclusion": _no_test(reasons)})
    found = pd.DataFrame(lines, columns=COLUMNS)
    tested = found["p_value"].notna()
    found["p_adjusted"] = found.groupby("eval_len")["p_value"].transform(_corrected)
    found.loc[tested, "conclusion"] = [_conclusion(line, metric) for line in found[tested].itertuples()]
    return found


def _corrected(p_values: pd.Series) -> pd.Series:
    """Returns the corrected p of the tests at one length; NaN stays where there is no test."""
    tested = p_values.dropna()
    return pd.Series(benjamini_hochberg(tested.tolist()), tested.index, dtype=float).reindex(p_values.index)


def _no_test(reasons: Sequence[str]) -> str:
    if EQUAL in reasons:
        return EQUAL
    return f"not tested: {', '.join(dict.fromkeys(reasons)).replace('_', ' ') or 'too few documents'}"


def _conclusion(line: Any, metric: Metric) -> str:
    if line.p_adjusted >= ALPHA:
        return NOT_SIGNIFICANT
    if metric.lower_is_better is None:
        return f"{line.a} is {'above' if line.a_minus_b > 0 else 'below'} {line.b}"
    better, worse = (line.a, line.b) if (line.a_minus_b < 0) == metric.lower_is_better else (line.b, line.a)
    return f"{better} beats {worse}"
