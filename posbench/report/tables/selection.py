"""Which rows make a number: series, lengths, and what their status allows to conclude."""

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

SERIES_COLUMNS = ["scheme", "extension"]  # what a line of a figure and a row of a table is
SETTING_COLUMNS = [
    "corpus",
    "model_size",
    "train_len",
    "train_tokens",
]  # what one figure or table must not mix


def series_label(scheme: str, extension: str) -> str:
    return scheme if extension == "none" else f"{scheme} + {extension}"


def ordered_series(rows: pd.DataFrame, order: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Every (scheme, extension) of the rows: plain schemes first, in the given order, others by name."""

    def rank(name: str) -> tuple[int, str]:
        return (order.index(name) if name in order else len(order), name)

    pairs = rows[SERIES_COLUMNS].drop_duplicates().itertuples(index=False, name=None)
    return sorted(
        pairs, key=lambda pair: (pair[1] != "none", rank(pair[0]), rank(series_label(*pair)), rank(pair[1]))
    )


def expand_prefix_lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the prefix protocol as rows of every length, each the sum of the buckets that end by it.

    The lengths are the buckets' ends that are the training length times a power of two, and the longest.
    """
    if not len(rows) or rows["protocol"].iat[0] != "prefix":
        return rows
    ends = rows[["position", "train_len", "eval_len"]].dropna().drop_duplicates()
    lengths = {
        int(end)
        for end, train_len, last in ends.itertuples(index=False)
        if end == last or math.log2(end / train_len) in range(32)
    }
    parts = []
    for length in sorted(lengths or set(rows["eval_len"])):
        # Of the contexts that reach so far the shortest: another total length may change a scheme's losses.
        reaching = rows[rows["eval_len"] >= length]
        nearest = reaching.groupby([*SERIES_COLUMNS, "train_seed"])["eval_len"].transform("min")
        # A row without a position says something of all lengths, such as that there is no number.
        counted = (reaching["position"] <= length).fillna(True).astype(bool) & (
            reaching["eval_len"] == nearest
        )
        parts.append(reaching[counted].assign(eval_len=length))
    return pd.concat(parts, ignore_index=True)


def longest(rows: pd.DataFrame) -> pd.DataFrame:
    """Each series at its longest context, which holds the targets of the shorter ones too."""
    return rows[
        rows["eval_len"] == rows.groupby([*SERIES_COLUMNS, "train_seed"])["eval_len"].transform("max")
    ]


def propagate_gate(rows: pd.DataFrame) -> pd.DataFrame:
    """Spread `not_learned` from the training length to every length of the model, and to its extensions.

    What a model never learned, no extension of it can show.
    """
    plain = ["task", "protocol", "variant", "model_id"]
    own = [*plain, "extension"]
    home = rows.loc[(rows["status"] == "not_learned") & (rows["eval_len"] == rows["train_len"]), own]
    # Few rows are of a model that failed somewhere, and none are left once this has run: the rest is for them alone.
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
    """The rows that a table or figure of one metric reads.

    Its own, those of its baselines, those without a number, and those by which the gate judges the models.
    """
    judged = rows["metric"].isin(GATE_METRICS)
    at_home = judged & (rows["eval_len"] == rows["train_len"])
    chosen = rows["metric"].isin([*metric.row_metrics, *metric.baselines]) | rows["value_sum"].isna()
    return rows[chosen | (at_home if at_home.any() else judged)]


def conclusive(rows: pd.DataFrame) -> pd.Series:
    """Mask of the rows that a number may be made of: for a model that did not learn the task, only the training length."""
    at_home = rows["eval_len"] == rows["train_len"]
    return (rows["status"] == "ok") | ((rows["status"] == "not_learned") & at_home)


def one_kernel(rows: pd.DataFrame) -> None:
    """Refuse a series whose numbers come from several kernels: they round differently.

    Different schemes may run on different kernels, since not every kernel runs every scheme; captions name them.
    Of one scheme (with its extension) a length must come from one, for all seeds and cells. Along the lengths
    one may have what another lacks, such as sdpa and then dense+sdpa where a second region begins; dense at one
    length and sdpa at another would make a step in a line that is no model's.

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
