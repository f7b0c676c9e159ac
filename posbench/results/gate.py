"""The retrieval gate: a model that has not learned a task at its training length is not judged at other lengths."""

import numpy as np
import pandas as pd

MIN_ACCURACY = 0.9
GATE_METRICS = ("exact_match", "substring_match", "recall")  # the first that a task has decides


def apply_gate(rows: pd.DataFrame) -> pd.DataFrame:
    """Sets the status `not_learned` for tasks whose accuracy at the training length is below MIN_ACCURACY.

    Each protocol and variant of a task is judged separately, by the rows of the model without extension; the verdict
    also holds for the model's extensions. A model with extensions only, such as a fine-tuned one or a pretrained one with
    its own scaling, is judged with each of them separately. A model without rows at its training length keeps its statuses.
    """
    was = rows["status"] == "not_learned"
    rows = rows.assign(status=rows["status"].mask(was, "ok"))
    judges = rows["metric"].isin(GATE_METRICS) & (rows["eval_len"] == rows["train_len"])
    plain = rows["model_id"].isin(rows.loc[judges & (rows["extension"] == "none"), "model_id"].unique())
    rows = rows.assign(judge=np.where(plain, -1, pd.factorize(rows["extension"])[0]))
    by = ["model_id", "task", "protocol", "variant", "judge"]
    keys = pd.MultiIndex.from_frame(rows[by])
    failed = pd.Series(False, index=rows.index)
    judged = pd.Series(False, index=rows.index)
    has_home = pd.Series(False, index=rows.index)
    for metric in GATE_METRICS:
        of_metric = (rows["metric"] == metric) & ~judged
        home = rows[of_metric & (rows["eval_len"] == rows["train_len"])]
        home = home[(home["extension"] == "none") | (home["judge"] >= 0)]
        sums = home[home["status"] == "ok"].groupby(by, observed=True)[["value_sum", "n"]].sum()
        below = sums.index[sums["value_sum"] / sums["n"] < MIN_ACCURACY]
        has_home |= keys.isin(sums.index)
        failed |= ~judged & keys.isin(below)
        judged |= keys.isin(pd.MultiIndex.from_frame(rows.loc[of_metric, by].drop_duplicates()))
    failed |= was & ~has_home
    status = rows["status"].mask(failed & (rows["status"] == "ok"), "not_learned")
    return rows.drop(columns="judge").assign(status=status)
