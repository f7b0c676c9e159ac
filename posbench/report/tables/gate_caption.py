"""The sentence of a caption about the gate: the accuracy that counts as learned, and the models below it."""

from collections.abc import Sequence

import pandas as pd

from posbench.report.tables.caption_text import variant_name
from posbench.report.tables.selection import SERIES_COLUMNS, propagate_gate, series_labels
from posbench.results.gate import GATE_METRICS, MIN_ACCURACY

_JUDGED = ["task", "protocol", "variant"]  # models pass or fail for each combination of these separately
Key = tuple[str, str, str]


def gate(panels: Sequence[pd.DataFrame], tuned: bool) -> str:
    """Returns the sentence about the gate; '' if no panel has a metric that the gate is applied to.

    Args:
        panels: rows of each panel.
        tuned: whether the panels have fine-tuned models.
    """
    judged = [rows for rows in panels if rows["metric"].isin(GATE_METRICS).any()]
    if not judged:
        return ""
    at_home = [rows["metric"].isin(GATE_METRICS) & (rows["eval_len"] == rows["train_len"]) for rows in judged]
    if not any(mask.any() for mask in at_home):
        return "Gate: not applied, since no model was evaluated at its training length."
    # The rows: a ranking shows only the series that have learned the task.
    columns = [*_JUDGED, *SERIES_COLUMNS, "train_seed", "status"]
    models = pd.concat([propagate_gate(rows)[columns] for rows in judged]).drop_duplicates()
    below = {key: _below(part) for key, part in models.groupby(_JUDGED, observed=True, sort=False)}
    if not any(below.values()):
        # Others diverged, are undefined there or were not evaluated there.
        home = {model for rows, mask in zip(judged, at_home, strict=True) for model in _measured(rows[mask])}
        some = (
            ""
            if home >= {model for rows in judged for model in rows["model_id"].unique()}
            else " with a number"
        )
        return f"Gate: all models{some} reach an accuracy of {MIN_ACCURACY:.2f} at the training length."
    names = next(iter(below.values()))
    if len(set(below.values())) > 1:
        names = "; ".join(f"{_name(key, list(below))}: {some}" for key, some in below.items() if some)
    own = " (fine-tuned models: with their own)" if tuned else ""
    return (
        "Gate: a model has values at longer contexts only if its accuracy at the training length, without an "
        f"extension{own}, is at least {MIN_ACCURACY:.2f}. Left out at longer contexts: {names}."
    )


def _measured(rows: pd.DataFrame) -> list[str]:
    """Returns the ids of the models that have a number in some rows."""
    return rows.loc[rows["value_sum"].notna(), "model_id"].unique().tolist()


def _below(models: pd.DataFrame) -> str:
    """Returns the models of one task that have not learned it, with their numbers of seeds."""
    failed = models[models["status"] == "not_learned"]
    seeds, of_failed = (
        of.groupby(SERIES_COLUMNS, observed=True, sort=False)["train_seed"].nunique()
        for of in (models, failed)
    )
    names = []
    for pair, name in zip(of_failed.index, series_labels(of_failed.reset_index()), strict=True):
        count, of = of_failed[pair], seeds[pair]
        names.append(name if of == 1 else f"{name} ({'all' if count == of else f'{count} of {of}'} seeds)")
    return ", ".join(names)


def _name(key: Key, keys: Sequence[Key]) -> str:
    """Returns the name of a task, with its protocol and variant where there are others of this task."""
    task, protocol, variant = key
    alike = [other for other in keys if other[0] == task]
    more = [protocol.replace("_", " ")] if len({other[1] for other in alike}) > 1 else []
    more += [variant_name(variant, task)] if len({other[2] for other in alike}) > 1 else []
    return task.replace("_", " ") + (f" ({', '.join(more)})" if more else "")
