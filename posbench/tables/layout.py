"""The tables of an experiment: one of its models, and one a protocol and measure."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from posbench.tables.captions import STATUS_NOTES, caption
from posbench.tables.comparison import compare
from posbench.tables.markup import Cell, Table
from posbench.tables.measures import BASELINES, MEASURES, Measure
from posbench.tables.selection import SETTING, at_lengths, label, series_of
from posbench.tables.summary import baselines, summarise

PROTOCOL = ["task", "protocol", "variant"]
COMPARED = ("bits_per_byte", "exact_match")  # the measures to conclude from


def tables(rows: pd.DataFrame, order: Sequence[str] = ()) -> Iterator[Table]:
    """Every table of the rows; settings and protocols are never mixed in one."""
    for setting_name, setting in _groups(rows, SETTING):
        yield _of_models(setting, order, _joined("models", setting_name))
        for protocol_name, part in _groups(setting, PROTOCOL, always=("task", "protocol")):
            at = at_lengths(part)
            metrics = set(at["metric"])
            for measure in MEASURES.values():
                if {
                    measure.metric,
                    measure.per or measure.metric,
                } <= metrics and measure.name not in BASELINES:
                    yield _by_length(at, measure, order, _joined(protocol_name, measure.name, setting_name))


def _by_length(rows: pd.DataFrame, measure: Measure, order: Sequence[str], name: str) -> Table:
    """A row a scheme, a column a length."""
    numbers = summarise(rows, measure)
    lengths = sorted(numbers["eval_len"].unique())
    train_len = int(rows["train_len"].iat[0])
    good = numbers[numbers["status"] == "ok"].groupby("eval_len")["estimate"]
    best = (good.min() if measure.lower_is_better else good.max()).map(_rounded).to_dict()
    lines = {(line.scheme, line.extension, line.eval_len): line for line in numbers.itertuples()}
    body = [
        [Cell(label(*series)), *(_cell(lines.get((*series, length)), best.get(length)) for length in lengths)]
        for series in series_of(numbers, order)
    ]
    if measure.name == "exact_match":
        guesses = baselines(rows).reindex(lengths)
        body += [
            [Cell(f"({MEASURES[guess].label})"), *(Cell(_rounded(value)) for value in guesses[guess])]
            for guess in BASELINES
        ]
    return Table(
        name=name,
        title=f"{measure.label[0].upper()}{measure.label[1:]} by context length in tokens",
        caption=caption([(rows, numbers, measure)], "Best in bold.", intervals="intervals", notes=False),
        header=["scheme", *(f"{length} ({length / train_len:g}×)" for length in lengths)],
        body=body,
        numbers=numbers.assign(measure=measure.name, train_len=train_len),
        differences=compare(rows, measure, order) if measure.name in COMPARED else None,
    )


def _of_models(rows: pd.DataFrame, order: Sequence[str], name: str) -> Table:
    """What was trained, for how long, and whether it learned to retrieve at the length of its training."""
    plain = rows[rows["extension"] == "none"]
    plain = rows if plain.empty else plain
    columns = ["scheme", "extension", "n_params", "train_len", "train_tokens"]
    numbers = plain.groupby(columns)["train_seed"].nunique().rename("train_seeds").reset_index()
    header = ["scheme", "parameters", "training tokens", "seeds"]
    home = plain[(plain["task"] == "key_value") & (plain["eval_len"] == plain["train_len"])]
    retrieval = [
        (_joined("retrieval at the training length", variant), summarise(part, MEASURES["exact_match"]))
        for variant, part in _groups(home, PROTOCOL)
    ]
    body = []
    for series in series_of(numbers, order):
        cells = [Cell(label(*series))]
        for line in numbers[
            (numbers["scheme"] == series[0]) & (numbers["extension"] == series[1])
        ].itertuples():
            cells += [Cell(f"{count:,}") for count in (line.n_params, line.train_tokens, line.train_seeds)]
        for _, found in retrieval:
            here = found[(found["scheme"] == series[0]) & (found["extension"] == series[1])]
            cells.append(_cell(next(here.itertuples(), None), None))
        body.append(cells)
    for column, found in retrieval:
        merged = found.drop(columns="eval_len").rename(columns={"estimate": column})
        numbers = numbers.merge(merged, on=["scheme", "extension"], how="left", suffixes=("", f" {column}"))
    return Table(
        name=name,
        title="The trained models",
        caption="Budgets are equal: the same data in the same order for every scheme.",
        header=[*header, *(column for column, _ in retrieval)],
        body=body,
        numbers=numbers,
    )


def _cell(line: Any, best: str | None) -> Cell:
    """One line of a summary: its number with the interval, or why there is none."""
    if line is None:
        return Cell("")
    note = "" if line.status == "ok" else f"{STATUS_NOTES[line.status]}."
    if pd.isna(line.estimate):
        return Cell("not learned" if line.status == "not_learned" else "–", note=note)
    if line.seeds_left_out:
        note = f"{line.seeds_left_out} of {line.seeds + line.seeds_left_out} seeds left out. {note}"
    text = _rounded(line.estimate)
    interval = "" if pd.isna(line.low) else f" [{_rounded(line.low)}, {_rounded(line.high)}]"
    return Cell(text + interval, best=line.status == "ok" and text == best, note=note)


def _rounded(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def _groups(
    rows: pd.DataFrame, columns: Sequence[str], always: Sequence[str] = ()
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows by the columns, each with a name made of the columns that tell the groups apart."""
    telling = [column for column in columns if column in always or rows[column].nunique() > 1]
    for key, part in rows.groupby(list(columns)):
        values = dict(zip(columns, key, strict=True))
        yield _joined(*(str(values[column]) for column in telling if values[column] != "none")), part


def _joined(*words: str) -> str:
    return "-".join(word for word in words if word)
