"""Captions of tables and figures, composed from sentences about their rows."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import pandas as pd

from posbench.report.tables.caption_text import (
    ALL_SYNTHETIC,
    CORPORA,
    GENERATED,
    OWN_TOKENS,
    PROTOCOLS,
    SAMPLE_UNITS,
    STATUS_NOTES,
    SYMBOLIC_TASKS,
    TASKS,
    TUNED,
    capital,
    cluster_name,
    is_tuned,
    variant_name,
)
from posbench.report.tables.gate_caption import gate
from posbench.report.tables.metrics import METRICS, SYMBOL_TASKS, Metric
from posbench.report.tables.selection import SERIES_COLUMNS, series_label, series_labels
from posbench.report.tables.summary import baseline_values
from posbench.results.statistics import MIN_CLUSTERS, MIN_SEEDS

_NOTE: ContextVar[str] = ContextVar("_NOTE", default="")
NAMED = 6  # largest number of series that are named beside 'the rest'


@contextmanager
def captions_with(note: str) -> Iterator[None]:
    """Ends the captions of tables and figures with sentences about their experiment."""
    token = _NOTE.set(note)
    try:
        yield
    finally:
        _NOTE.reset(token)


def caption(
    sides: Sequence[tuple[pd.DataFrame, pd.DataFrame, Metric]],
    *more: str,
    intervals: str = "bands",
    notes: bool = True,
) -> str:
    """Returns the caption of a table or figure, with everything needed to read it without the text around it.

    Names protocol, sample sizes, seeds and intervals, baselines and gate, text, models and kernels; a sentence that
    holds for several panels is written once.

    Args:
        sides: (rows, their summary, its metric) of every panel.
        more: sentences of the table or figure itself.
        intervals: how intervals are shown, such as "bands".
        notes: list series without a number; not needed for tables, whose cells say so.
    """
    sentences: list[str] = []
    parts = [rows for rows, *_ in sides]
    named = [variants(parts)]
    for rows, shown, metric in _by_metric(sides):
        own_tokens = OWN_TOKENS if metric.row_metric.startswith("key_token") else ""
        sentences += [protocol(rows, metric), own_tokens, *named, counts(rows, shown, metric, intervals)]
        own = intervals in ("intervals", "bands")  # of the numbers, not of differences
        sentences += [no_width(rows, shown) if own else "", baselines(rows, metric)]
    sentences += [gate(parts, TUNED in experiment_note(parts)), *more]
    for rows in parts:
        sentences += [text(rows), models(rows)]
    if notes:
        failed = _failed(pd.concat([shown[[*SERIES_COLUMNS, "status"]] for _, shown, _ in sides]))
        sentences += [
            f"{STATUS_NOTES[status]} ({', '.join(series_labels(lines))})." for status, lines in failed
        ]
    sentences += [kernels(parts), experiment_note(parts)]
    return " ".join(dict.fromkeys(sentence for sentence in sentences if sentence))


def experiment_note(parts: Sequence[pd.DataFrame]) -> str:
    """Returns the sentences about the experiment, without those about fine-tuned models that no panel has."""
    note = _NOTE.get()
    has_one = any(is_tuned(note, extension) for rows in parts for extension in rows["extension"].unique())
    return note if has_one else note.partition(TUNED)[0].strip()


def protocol(rows: pd.DataFrame, metric: Metric) -> str:
    """Returns the description of the protocol or task, with the targets of a row if all rows have as many."""
    description = _description(rows)
    if "{targets}" not in description:
        description = description.replace("{ranges}", symbol_ranges(rows["eval_len"].unique()))
        return description.replace("{variant}", " or ".join(map(str, rows["variant"].unique())))
    measured = rows[(rows["metric"] == metric.row_metric) & rows["value_sum"].notna()]
    targets = measured["n"].unique()
    texts = measured[["eval_seed", "doc_id", "example"]].drop_duplicates()
    several = texts.duplicated(["eval_seed", "doc_id"]).any()
    return description.format(
        targets=f"{targets[0]} " if len(targets) == 1 else "",
        text="segment of a document" if several else "document",
    )


def symbol_ranges(lengths: Iterable[int]) -> str:
    """Returns the numbers of symbols that lengths of 2 n + 2 tokens stand for, if each range follows that of a shorter one."""
    ordered = sorted(lengths)
    ends = [(length - 2) // 2 for length in ordered]
    ranges = [f"up to {ends[0]}", *(f"{before + 1} to {end}" for before, end in itertools.pairwise(ends))]
    return f"{', '.join(map(str, ordered))} tokens: answers to inputs of {', '.join(ranges)} symbols."


def variants(parts: Sequence[pd.DataFrame]) -> str:
    """Returns the names of the variants of all panels, unless the only one is plain or in the task's description."""
    described = [rows for rows in parts if "{variant}" not in _description(rows)]
    found = {(str(one), str(rows["task"].iat[0])) for rows in described for one in rows["variant"].unique()}
    if {variant for variant, _ in found} <= {"", "none"}:
        return ""
    names = dict.fromkeys(variant_name(*one) for one in sorted(found))
    return f"Variant{'s' * (len(names) > 1)}: {', '.join(names)}."


def counts(rows: pd.DataFrame, shown: pd.DataFrame, metric: Metric, intervals: str) -> str:
    """Returns the sample size of a point, the number of seeds, and the kind of interval."""
    drawn = shown[shown["seeds"] > 0]
    clusters, items = SAMPLE_UNITS.get(rows["task"].iat[0], ("documents", "tokens"))
    items = {"tokens": "scored tokens", "answers or symbols": "answers"}.get(items, items)
    of_symbols = metric.name == "logprob" and rows["task"].iat[0] in SYMBOL_TASKS
    items = "symbols" if metric.name == "symbol_accuracy" or of_symbols else items
    n = f"{_span(drawn['n'] // drawn['seeds'])} {items} in {_span(drawn['n_docs'])} {clusters}"
    point = "per point" if "position" in shown else "per length"
    one = set(drawn["seeds"]) == {1}
    seeds = "1 training seed" if one else f"{_span(drawn['seeds'])} training seeds"
    kinds = [_confidence(kind, clusters) for kind in dict.fromkeys(shown["interval_method"]) if kind]
    # Figures draw only intervals over seeds.
    in_csv = [] if intervals.startswith("intervals") else [kind for kind in kinds if "seeds" not in kind]
    shown_kinds = [kind for kind in kinds if kind not in in_csv]
    parts = [(intervals, shown_kinds), ("intervals, in the csv alone", in_csv)]
    spreads = [f"{words}: {_joined(some)}" for words, some in parts if some]
    without = drawn.loc[drawn["interval_method"] == "", "n_docs"]
    few = f" and {MIN_CLUSTERS} {clusters}" if without.max() < MIN_CLUSTERS else ""
    none = f"; none for points with fewer than {MIN_SEEDS} seeds{few}" if len(without) else ""
    spread = f"; {'; '.join(spreads)}{none}" if kinds else f"; no interval from fewer than {MIN_SEEDS} seeds"
    return f"{capital(metric.label)} over {n} {point}; {seeds}{spread}."


def no_width(rows: pd.DataFrame, shown: pd.DataFrame) -> str:
    """Returns the sentence about intervals without width, such as that of an accuracy of 1; '' without any."""
    methods = shown.loc[shown["low"] == shown["high"], "interval_method"].unique()
    clusters = f"all {cluster_name(rows['task'].iat[0])}"
    equal = dict.fromkeys("all seeds" if "Student" in name else clusters for name in methods if name)
    if not equal:
        return ""
    return (
        f"An interval has no width where {' or '.join(equal)} have the same value, "
        "and does not bound the error there."
    )


def baselines(rows: pd.DataFrame, metric: Metric) -> str:
    """Returns the scores of guessing, such as chance, at the shortest and at the longest context."""
    if not metric.baselines:
        return ""
    parts = []
    for name, column in baseline_values(rows, metric.baselines).items():
        values = [f"{value:.2f}" if value >= 0.01 else f"{value:.1g}" for value in column.dropna()]
        ends = values[:1] if len(set(values)) == 1 else [values[0], values[-1]]
        at = " (shortest context) to ".join(ends) + (" (longest)" if len(ends) > 1 else "")
        parts.append(f"{METRICS[str(name)].label}: {at}")
    return f"{capital('; '.join(parts))}." if parts else ""


def text(rows: pd.DataFrame) -> str:
    """Returns the name of the corpus, unless neither training nor evaluation has text of it."""
    in_text = rows["variant"].astype(str).str.startswith("spread").any()
    if _NOTE.get().startswith(ALL_SYNTHETIC) and set(rows["task"]) <= SYMBOLIC_TASKS and not in_text:
        return ""
    if set(rows["task"]) == {"lm_eval"} and not rows["train_tokens"].iat[0]:
        return ""  # the corpus of a pretrained model gives only its tokenizer
    corpus = rows["corpus"].iat[0]
    return f"Text: {CORPORA.get(corpus, corpus)}."


def models(rows: pd.DataFrame) -> str:
    size, train_len = (rows[name].iat[0] for name in ("model_size", "train_len"))
    parameters, tokens = (
        " to ".join(dict.fromkeys(f"{end / 1e6:.2f}M" for end in (rows[name].min(), rows[name].max())))
        for name in ("n_params", "train_tokens")
    )
    if rows["train_tokens"].iat[0]:
        return f"Models: {size}, {parameters} parameters, trained on {tokens} tokens in sequences of {train_len}."
    return (
        f"Models: {size}, {parameters} parameters, pretrained in sequences of {train_len}. Every prompt begins with the "
        "token that begins a text, at every length."
    )


def kernels(sides: Sequence[pd.DataFrame]) -> str:
    """Returns the attention kernels that ran, by series if there are several, and the precision."""
    by_series: dict[tuple[str, str], set[str]] = {}
    for rows in sides:
        ran = rows.loc[rows["value_sum"].notna(), [*SERIES_COLUMNS, "kernel"]].drop_duplicates()
        for *series, kernel in ran.itertuples(index=False, name=None):
            by_series.setdefault((series[0], series[1]), set()).add(kernel)
    groups: dict[str, list[tuple[str, str]]] = {}
    for pair in sorted(by_series):
        groups.setdefault(", ".join(sorted(by_series[pair])), []).append(pair)
    precision = " and ".join(sorted({str(name) for rows in sides for name in rows["dtype"].unique()}))
    if len(groups) < 2:
        return f"Attention kernel: {next(iter(groups), 'none')} in {precision}."
    *few, most = sorted(groups, key=lambda name: (len(groups[name]), name))
    parts = []
    for name in few:
        names = [series_label(*pair) for pair in groups[name]]
        whose = ", ".join(names) if len(names) <= NAMED else f"{len(names)} of {len(by_series)}"
        parts.append(f"{'unused' if name == 'none' else name} ({whose})")
    return f"Attention kernels: {', '.join(parts)}, {most} (the rest), in {precision}."


def _description(rows: pd.DataFrame) -> str:
    protocol, task = (rows[name].iat[0] for name in ("protocol", "task"))
    if (rows["metric"] == "substring_match").any():
        protocol = GENERATED.get(protocol, protocol)
    return PROTOCOLS.get(protocol) or TASKS.get(task) or f"Protocol {protocol}."


def _failed(shown: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    # Models that have not learned the task are listed with the gate.
    failed = shown[~shown["status"].isin(["ok", "not_learned"])]
    return [(status, failed[failed["status"] == status]) for status in dict.fromkeys(failed["status"])]


def _by_metric(
    sides: Sequence[tuple[pd.DataFrame, pd.DataFrame, Metric]],
) -> list[tuple[pd.DataFrame, pd.DataFrame, Metric]]:
    """Joins the panels of one task, protocol and metric, which a caption describes once."""
    joined: dict[tuple[str, str, Metric], list[tuple[pd.DataFrame, pd.DataFrame]]] = {}
    for rows, shown, metric in sides:
        joined.setdefault((rows["task"].iat[0], rows["protocol"].iat[0], metric), []).append((rows, shown))
    return [
        (pd.concat(part[0] for part in parts), pd.concat(part[1] for part in parts), key[2])
        for key, parts in joined.items()
    ]


def _confidence(method: str, clusters: str) -> str:
    """Returns how a caption names the method of an interval, and which trainings and texts the interval holds for."""
    level = method.split(maxsplit=1)[0]
    seeds = method.partition(" over ")[2]
    if "two-level" in method:
        return f"{level} confidence over {seeds} and {clusters}"
    if seeds:
        return f"{level} confidence over {seeds}, for these {clusters} alone"
    return f"{level} confidence over {clusters}, for these trainings alone"


def _joined(kinds: Sequence[str]) -> str:
    """Returns the kinds of intervals, those over seeds first; the others are of points with too few seeds for them."""
    over_seeds, others = ([kind for kind in kinds if ("seeds" in kind) == wanted] for wanted in (True, False))
    between = f"; with fewer than {MIN_SEEDS} seeds: " if over_seeds and others else ""
    return ", ".join(over_seeds) + between + ", ".join(others)


def _span(values: pd.Series) -> str:
    if values.empty:
        return "no"
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


__all__ = ["STATUS_NOTES", "caption", "cluster_name"]
