"""Table of the trained models: sizes, training budgets, and accuracies at the training length."""

from collections.abc import Sequence

import pandas as pd

from posbench.report.tables.captions import counts, experiment_note
from posbench.report.tables.formatting import format_cell, format_number
from posbench.report.tables.markup import Table, TableCell
from posbench.report.tables.metrics import METRICS, Metric, get_metric
from posbench.report.tables.selection import ordered_series, series_label
from posbench.report.tables.summary import aggregate, baseline_values
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY

_BUDGETS = "All schemes are trained on the same data in the same order."


def models_table(
    rows: pd.DataFrame, parts: Sequence[tuple[str, pd.DataFrame]], order: Sequence[str], name: str
) -> Table:
    """Returns the table of models, a row per scheme.

    Args:
        parts: (name, rows) of each protocol; those with an accuracy have a column with the accuracy at the training
            length, which the gate is applied to, and below it baselines and the gate.
    """
    extensions = ["none"] if (rows["extension"] == "none").any() else rows["extension"].unique()
    columns = ["scheme", "extension", "n_params", "train_len", "train_tokens"]
    models = rows.loc[rows["extension"].isin(extensions), [*columns, "train_seed"]].drop_duplicates()
    numbers = models.groupby(columns)["train_seed"].nunique().rename("train_seeds").reset_index()
    home = [
        (f"accuracy of {part_name} at the training length", metric, part)
        for part_name, of_all in parts
        if len(
            part := of_all[(of_all["eval_len"] == of_all["train_len"]) & of_all["extension"].isin(extensions)]
        )
        and (metric := _gate_metric(part))
    ]
    found = [(column, aggregate(part, metric)) for column, metric, part in home]
    body = []
    for scheme, extension in ordered_series(numbers, order):
        cells = [TableCell(series_label(scheme, extension))]
        for line in numbers[(numbers["scheme"] == scheme) & (numbers["extension"] == extension)].itertuples():
            cells += [
                TableCell(f"{count:,}") for count in (line.n_params, line.train_tokens, line.train_seeds)
            ]
        for _, accuracies in found:
            here = accuracies[(accuracies["scheme"] == scheme) & (accuracies["extension"] == extension)]
            cells.append(format_cell(next(here.itertuples(), None)))
        body.append(cells)
    if home:
        body += _baselines(home)
    for column, accuracies in found:
        merged = accuracies.drop(columns="eval_len").rename(columns={"estimate": column})
        numbers = numbers.merge(merged, on=["scheme", "extension"], how="left", suffixes=("", f" {column}"))
    samples = [
        counts(part, accuracies, metric, "intervals")
        for (_, accuracies), (_, metric, part) in zip(found, home, strict=True)
    ]
    trained = bool((models["train_tokens"] > 0).any())  # 0 of a pretrained model
    several = trained and models["scheme"].nunique() > 1
    return Table(
        name=name,
        title="The trained models" if trained else "The models",
        caption=" ".join(
            dict.fromkeys([*([_BUDGETS] if several else []), *samples, experiment_note([rows])])
        ).strip(),
        header=["scheme", "parameters", "training tokens", "seeds", *(column for column, _ in found)],
        body=body,
        numbers=numbers,
    )


def _gate_metric(part: pd.DataFrame) -> Metric | None:
    present = [metric for metric in GATE_METRICS if (part["metric"] == metric).any()]
    return get_metric(present[0], part["task"].iat[0]) if present else None


def _baselines(home: Sequence[tuple[str, Metric, pd.DataFrame]]) -> list[list[TableCell]]:
    """Table rows of the baselines and the gate."""
    baselines = [baseline_values(part, metric.baselines).mean() for _, metric, part in home]
    names = dict.fromkeys(name for each in baselines for name in each.index)
    lines = [
        (METRICS[str(name)].label, [format_number(each.get(name, float("nan"))) for each in baselines])
        for name in names
    ]
    lines.append(("gate", [format_number(MIN_ACCURACY)] * len(home)))
    blank = [TableCell("")] * 3
    return [
        [TableCell(f"({name})"), *blank, *(TableCell(value) for value in values)] for name, values in lines
    ]
