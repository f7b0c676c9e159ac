"""Captions: what a stranger must know to read a figure or a table without the text around it."""

from collections.abc import Sequence

import pandas as pd

from posbench.tables.measures import Measure
from posbench.tables.selection import SERIES, label

PROTOCOLS = {
    "fixed_targets": "Fixed targets: the same last {targets}tokens of each document are predicted at every length; "
    "only the context before them grows.",
    "non_overlapping": "Non-overlapping windows of each length; all their tokens count, so that longer windows "
    "have fewer early tokens, which are hard for every model.",
    "sliding": "Sliding windows ({variant}): only the tokens that are new to a window count.",
    "prefix": "Prefix: documents are read once from their start.",
}
TASKS = {
    "key_value": "Key-value retrieval: a context is filled with key-value records, and the value of one key is asked "
    "for; right if the value is the model's first choice.",
}
CORPORA = {"sources": "Python source code (sources)", "stdlib": "Python's standard library (stdlib)"}
STATUS_NOTES = {
    "undefined": "Undefined, no value past the length it was built for",
    "not_learned": "Not learned: retrieval at the training length is under the gate, "
    "so nothing is concluded from longer contexts",
    "out_of_memory": "Out of memory",
    "diverged": "Training diverged",
}


def caption(
    sides: Sequence[tuple[pd.DataFrame, pd.DataFrame, Measure]],
    *more: str,
    intervals: str = "bands",
    notes: bool = True,
) -> str:
    """A caption for (rows, their summary, its measure) of every panel; what they share is said once.

    `intervals` is what the intervals are seen as, '' where they are not; `notes` tells what has no number.
    """
    sentences = []
    for rows, shown, measure in sides:
        sentences += [protocol(rows, shown), counts(shown, measure, intervals)]
    sentences += more
    for rows, shown, _ in sides:
        sentences += [text(rows), models(rows)]
        if notes:
            sentences += [f"{STATUS_NOTES[status]} ({_names(lines)})." for status, lines in _failed(shown)]
    return " ".join(dict.fromkeys(sentences))


def protocol(rows: pd.DataFrame, shown: pd.DataFrame) -> str:
    first = rows.iloc[0]
    drawn = shown[shown["seeds"] > 0]
    per_document = (drawn["n"] / drawn["seeds"] / drawn["documents"]).unique()
    targets = f"{per_document[0]:g} " if len(per_document) == 1 and per_document[0] % 1 == 0 else ""
    sentence = (
        PROTOCOLS.get(first["protocol"]) or TASKS.get(first["task"]) or f"Protocol {first['protocol']}."
    )
    return sentence.format(targets=targets, variant=first["variant"])


def counts(shown: pd.DataFrame, measure: Measure, intervals: str) -> str:
    """How much stands behind a point, and what its interval is."""
    drawn = shown[shown["seeds"] > 0]
    clusters, things = ("contexts", "questions") if measure.task == "key_value" else ("documents", "tokens")
    n = f"{_span(drawn['documents'])} {clusters} with {_span(drawn['n'] // drawn['seeds'])} {things}"
    point = "a point" if "position" in shown else "a length"
    seeds = "1 training seed" if set(drawn["seeds"]) <= {1} else f"{_span(drawn['seeds'])} training seeds"
    kinds = [kind for kind in dict.fromkeys(shown["interval"]) if kind]
    spread = f"; {intervals}: {', '.join(kinds)}" if kinds and intervals else ""
    return f"{measure.label[0].upper()}{measure.label[1:]} over {n} {point}; {seeds}{spread}."


def text(rows: pd.DataFrame) -> str:
    corpus = rows["corpus"].iat[0]
    return f"Text: {CORPORA.get(corpus, corpus)}."


def models(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    sizes = [f"{parameters / 1e6:.2f}M" for parameters in (rows["n_params"].min(), rows["n_params"].max())]
    span = " to ".join(dict.fromkeys(sizes))
    tokens = f"{first['train_tokens'] / 1e6:.2f}M tokens"
    return f"Models: {first['size']}, {span} parameters, trained on {tokens} in sequences of {first['train_len']}."


def _failed(shown: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    failed = shown[shown["status"] != "ok"]
    return [(status, failed[failed["status"] == status]) for status in dict.fromkeys(failed["status"])]


def _names(lines: pd.DataFrame) -> str:
    pairs = lines[SERIES].itertuples(index=False, name=None)
    return ", ".join(dict.fromkeys(label(*pair) for pair in pairs))


def _span(values: pd.Series) -> str:
    if values.empty:
        return "no"
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
