"""Selection of rows: series, lengths, and the rows whose status allows conclusions."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posbench.errors import IncompatibleError
from posbench.report.tables.metrics import Metric
from posbench.results.gate import GATE_METRICS

SERIES_COLUMNS = ["scheme", "extension"]  # a line of a figure, a row of a table
SETTING_COLUMNS = ["corpus", "model_size", "train_len", "train_tokens"]  # constant in a figure or table


def series_label(scheme: str, extension: str) -> str:
    return scheme if extension == "none" else f"{scheme} + {extension}"


def series_labels(rows: pd.DataFrame) -> list[str]:
    """Returns the label of every series of the rows, in order of appearance."""
    pairs = rows[SERIES_COLUMNS].itertuples(index=False, name=None)
    return list(dict.fromkeys(series_label(*pair) for pair in pairs))


def ordered_series(rows: pd.DataFrame, order: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Returns every (scheme, extension) of the rows: plain schemes first, in the given order, others by name."""

    def rank(name: str) -> tuple[int, str]:
        return (order.index(name) if name in order else len(order), name)

    pairs = rows[SERIES_COLUMNS].drop_duplicates().itertuples(index=False, name=None)
    return sorted(
        pairs, key=lambda pair: (pair[1] != "none", rank(pair[0]), rank(series_label(*pair)), rank(pair[1]))
    )


def expand_prefix_lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """Converts rows of the prefix protocol to rows of several lengths; returns rows of other protocols unchanged.

    A length has the rows of all buckets of positions that end at or before it. Lengths are the ends of buckets that
    are the training length times a power of two, and the longest end of a series, if every series with as much context has
    a bucket that ends there.
    """
    if not len(rows) or rows["protocol"].iat[0] != "prefix":
        return rows
    ends = rows[["position", "train_len", "eval_len"]].dropna().drop_duplicates()
    lengths = {
        int(end)
        for end, train_len, last in ends.itertuples(index=False)
        if end == last or math.log2(end / train_len) in range(32)
    }
    ends_of = {
        key: set(part["position"])
        for key, part in rows.dropna(subset="position").groupby(["eval_len", *SERIES_COLUMNS], observed=True)
    }
    parts = []
    for length in sorted(lengths or set(rows["eval_len"])):
        # From the shortest context that is long enough, since losses of some schemes depend on the total length.
        long_enough = rows[rows["eval_len"] >= length]
        shortest = long_enough.groupby([*SERIES_COLUMNS, "train_seed"])["eval_len"].transform("min")
        used = long_enough.loc[
            long_enough["eval_len"] == shortest, ["eval_len", *SERIES_COLUMNS]
        ].drop_duplicates()
        if any(length not in ends_of.get(key, {length}) for key in used.itertuples(index=False, name=None)):
            continue
        # Rows without a position, such as those that say that there is no number, hold for all lengths.
        counted = (long_enough["position"] <= length).fillna(True).astype(bool) & (
            long_enough["eval_len"] == shortest
        )
        parts.append(long_enough[counted].assign(eval_len=length))
    return pd.concat(parts, ignore_index=True)


def longest(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns each series at its longest context, which includes the targets of shorter ones."""
    return rows[
        rows["eval_len"] == rows.groupby([*SERIES_COLUMNS, "train_seed"])["eval_len"].transform("max")
    ]


def propagate_gate(rows: pd.DataFrame) -> pd.DataFrame:
    """Copies the status `not_learned` from the training length to all lengths and extensions of a model."""
    plain = ["task", "protocol", "variant", "model_id"]
    own = [*plain, "extension"]
    home = rows.loc[(rows["status"] == "not_learned") & (rows["eval_len"] == rows["train_len"]), own]
    # Comparing whole keys is slow, so it is limited to the few rows of models that failed a task.
    candidates = rows["task"].isin(home["task"].unique()) & rows["model_id"].isin(home["model_id"].unique())
    changed = ((rows["status"] == "ok") & candidates).to_numpy(copy=True)
    if not changed.any():
        return rows
    ok = rows.loc[changed, own]
    changed[changed] = _among(ok[plain], home.loc[home["extension"] == "none", plain]) | _among(ok, home)
    return rows.assign(status=rows["status"].mask(changed, "not_learned"))


def _among(rows: pd.DataFrame, others: pd.DataFrame) -> NDArray[np.bool_]:
    keys = others.drop_duplicates().itertuples(index=False, name=None)
    return pd.MultiIndex.from_frame(rows).isin(list(keys))


def rows_of_metric(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Returns the rows that a table or figure of one metric needs.

    These are its own rows, those of its baselines, those without a number, and those that the gate is applied to.
    """
    judged = rows["metric"].isin(GATE_METRICS)
    at_home = judged & (rows["eval_len"] == rows["train_len"])
    chosen = rows["metric"].isin([*metric.row_metrics, *metric.baselines]) | rows["value_sum"].isna()
    return rows[chosen | (at_home if at_home.any() else judged)]


def conclusive(rows: pd.DataFrame) -> pd.Series:
    """Mask of the rows that may enter a number: status "ok", or "not_learned" at the training length."""
    at_home = rows["eval_len"] == rows["train_len"]
    return (rows["status"] == "ok") | ((rows["status"] == "not_learned") & at_home)


def one_kernel(rows: pd.DataFrame) -> None:
    """Checks that no series mixes attention kernels, whose rounding differs.

    Different schemes may run on different kernels, since no kernel supports every scheme; captions name them. All
    rows of a series at one length must come from one kernel. Between lengths, kernels may only be added, such as
    dense+sdpa after sdpa where a second region of pairs begins: a change from dense to sdpa could show as a step.

    Raises:
        IncompatibleError: a series mixes kernels.
    """
    computed = rows.loc[rows["value_sum"].notna(), [*SERIES_COLUMNS, "eval_len", "kernel"]].drop_duplicates()
    ran: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for scheme, extension, length, kernel in computed.itertuples(index=False, name=None):
        ran.setdefault((scheme, extension), []).append((length, kernel))
    for (scheme, extension), pairs in sorted(ran.items()):
        names = sorted({kernel for _, kernel in pairs})
        parts = sorted((set(name.split("+")) for name in names), key=len)
        nested = all(few <= more for few, more in itertools.pairwise(parts))
        several = [length for length, count in Counter(length for length, _ in pairs).items() if count > 1]
        if not several and nested:
            continue
        where = f" at {min(several)} tokens" if several else ""
        raise IncompatibleError(
            f"{series_label(scheme, extension)} was computed with kernels {', '.join(names)}{where}: "
            "evaluate it with one, or set mix_kernels: true"
        )
