"""The table of what was trained, for how long, and whether it learned what it is asked for."""

from collections.abc import Sequence

import pandas as pd

from posbench.report.tables.captions import counts
from posbench.report.tables.cells import cell, rounded
from posbench.report.tables.markup import Cell, Table
from posbench.report.tables.measures import MEASURES, Measure, measure_named
from posbench.report.tables.selection import label, series_of
from posbench.report.tables.summary import baselines, summarise
from posbench.results.gate import ACCURACIES, GATE

_BUDGETS = "Budgets are equal: the same data in the same order for every scheme."


def trained(
    rows: pd.DataFrame, parts: Sequence[tuple[str, pd.DataFrame]], order: Sequence[str], name: str
) -> Table:
    """A row a model's scheme; a column for the accuracy of each of `parts`, (name, rows) of one protocol.

    Accuracies are those at the training length, which the gate judges; under them stand chance and the gate.
    """
    plain = rows[rows["extension"] == "none"]
    plain = rows if plain.empty else plain
    columns = ["scheme", "extension", "n_params", "train_len", "train_tokens"]
    numbers = plain.groupby(columns)["train_seed"].nunique().rename("train_seeds").reset_index()
    home = [
        (f"accuracy of {part_name} at the training length", measure, part)
        for part_name, of_all in parts
        if len(part := of_all[of_all.index.isin(plain.index) & (of_all["eval_len"] == of_all["train_len"])])
        and (measure := _judged(part))
    ]
    found = [(column, summarise(part, measure)) for column, measure, part in home]
    body = []
    for scheme, extension in series_of(numbers, order):
        cells = [Cell(label(scheme, extension))]
        for line in numbers[(numbers["scheme"] == scheme) & (numbers["extension"] == extension)].itertuples():
            cells += [Cell(f"{count:,}") for count in (line.n_params, line.train_tokens, line.train_seeds)]
        for _, accuracies in found:
            here = accuracies[(accuracies["scheme"] == scheme) & (accuracies["extension"] == extension)]
            cells.append(cell(next(here.itertuples(), None)))
        body.append(cells)
    if home:
        body += _under(home)
    for column, accuracies in found:
        merged = accuracies.drop(columns="eval_len").rename(columns={"estimate": column})
        numbers = numbers.merge(merged, on=["scheme", "extension"], how="left", suffixes=("", f" {column}"))
    told = [
        counts(part, accuracies, measure, "intervals")
        for (_, accuracies), (_, measure, part) in zip(found, home, strict=True)
    ]
    return Table(
        name=name,
        title="The trained models",
        caption=" ".join(dict.fromkeys([_BUDGETS, *told])),
        header=["scheme", "parameters", "training tokens", "seeds", *(column for column, _ in found)],
        body=body,
        numbers=numbers,
    )


def _judged(part: pd.DataFrame) -> Measure | None:
    held = [metric for metric in ACCURACIES if (part["metric"] == metric).any()]
    return measure_named(held[0], part["task"].iat[0]) if held else None


def _under(home: Sequence[tuple[str, Measure, pd.DataFrame]]) -> list[list[Cell]]:
    """What accuracies are to be held against: guesses, and the gate."""
    guesses = [baselines(part, measure.guesses).mean() for _, measure, part in home]
    names = dict.fromkeys(name for each in guesses for name in each.index)
    lines = [
        (MEASURES[str(name)].label, [rounded(each.get(name, float("nan"))) for each in guesses])
        for name in names
    ]
    lines.append(("gate", [rounded(GATE)] * len(home)))
    blank = [Cell("")] * 3
    return [[Cell(f"({name})"), *blank, *(Cell(value) for value in values)] for name, values in lines]
