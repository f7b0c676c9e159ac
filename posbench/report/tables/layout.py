"""The tables of an experiment: one of its models, and some a protocol and measure."""

from collections.abc import Iterator, Sequence

import pandas as pd

from posbench.report.tables.caption_text import capital
from posbench.report.tables.captions import caption
from posbench.report.tables.cells import cell, rounded
from posbench.report.tables.comparison import compare
from posbench.report.tables.differences import differences
from posbench.report.tables.gain import context_gain
from posbench.report.tables.markup import Cell, Table
from posbench.report.tables.measures import MEASURES, Measure, measures_of
from posbench.report.tables.selection import SETTING, at_lengths, label, one_kernel, series_of
from posbench.report.tables.serial_position import serial_position
from posbench.report.tables.summary import baselines, summarise
from posbench.report.tables.trained import trained
from posbench.results.gate import ACCURACIES, GATE

PROTOCOL = ["task", "protocol", "variant"]
COMPARED = ("bits_per_byte", "exact_match", "substring_match", "hit")  # the measures to conclude from


def tables(rows: pd.DataFrame, order: Sequence[str] = (), mix_kernels: bool = False) -> Iterator[Table]:
    """Every table of the rows; settings, protocols and, unless told to, kernels are never mixed in one."""
    for setting_name, setting in _groups(rows, SETTING):
        protocols = list(_groups(setting, PROTOCOL, always=("task", "protocol")))
        yield trained(setting, protocols, order, _joined("models", setting_name))
        for protocol_name, part in protocols:
            if not mix_kernels:
                one_kernel(part)
            at = at_lengths(part)
            for measure in measures_of(at["task"].iat[0], set(at["metric"])):
                name = _joined(protocol_name, measure.name, setting_name)
                yield from _of_measure(at, measure, order, name)


def _of_measure(rows: pd.DataFrame, measure: Measure, order: Sequence[str], name: str) -> Iterator[Table]:
    table = _by_length(rows, measure, order, name)
    yield table
    if measure.name in COMPARED:
        found = differences(
            rows, table.numbers, compare(rows, measure, order), measure, f"{name}-differences"
        )
        if found is not None:
            yield found
    if measure.name == "bits_per_byte" and set(rows["protocol"]) == {"fixed_targets"}:
        yield context_gain(rows, measure, order, f"{name}-gain")
    if measure.name in ACCURACIES and rows.loc[rows["metric"] == measure.metric, "depth"].nunique() > 1:
        yield serial_position(rows, measure, order, f"{name}-serial_position")


def _by_length(rows: pd.DataFrame, measure: Measure, order: Sequence[str], name: str) -> Table:
    """A row a scheme, a column a length; under an accuracy what could be guessed, and the gate."""
    numbers = summarise(rows, measure)
    lengths = sorted(numbers["eval_len"].unique())
    train_len = int(rows["train_len"].iat[0])
    good = numbers[numbers["status"] == "ok"].groupby("eval_len")["estimate"]
    best, bold = {}, []
    if measure.lower_is_better is not None:
        bold = ["Best in bold."]
        best = (good.min() if measure.lower_is_better else good.max()).map(rounded).to_dict()
    lines = {(line.scheme, line.extension, line.eval_len): line for line in numbers.itertuples()}
    body = [
        [Cell(label(*series)), *(cell(lines.get((*series, length)), best.get(length)) for length in lengths)]
        for series in series_of(numbers, order)
    ]
    for guess, column in baselines(rows, measure.guesses).items():
        values = column.reindex(lengths)
        body.append([Cell(f"({MEASURES[str(guess)].label})"), *(Cell(rounded(value)) for value in values)])
    if measure.name in ACCURACIES and train_len in lengths:
        gates = [rounded(GATE) if length == train_len else "" for length in lengths]
        body.append([Cell("(gate)"), *(Cell(value) for value in gates)])
    return Table(
        name=name,
        title=f"{capital(measure.label)} by context length in tokens",
        caption=caption([(rows, numbers, measure)], *bold, intervals="intervals", notes=False),
        header=["scheme", *(f"{length} ({length / train_len:g}×)" for length in lengths)],
        body=body,
        numbers=numbers.assign(measure=measure.name, train_len=train_len),
    )


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
