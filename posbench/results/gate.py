"""The gate of retrieval: from a model that has not learned a task where it was trained, nothing is concluded."""

import pandas as pd

MIN_ACCURACY = 0.9
GATE_METRICS = ("exact_match", "substring_match")  # the first that a task has decides


def apply_gate(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a task whose accuracy at the model's training length is under MIN_ACCURACY become `not_learned`.

    Each protocol and variant of a task is judged by itself. A model's rows without extension decide, for its
    extensions too; a fine-tuned model has none and is judged by the extension that it was tuned with. A model
    that was never asked at its training length is not judged.
    """
    by = ["model_id", "task", "protocol", "variant"]
    keys = pd.MultiIndex.from_frame(rows[by])
    closed = pd.Series(False, index=rows.index)
    judged = pd.Series(False, index=rows.index)
    for metric in GATE_METRICS:
        asked = (rows["metric"] == metric) & ~judged
        home = rows[asked & (rows["eval_len"] == rows["train_len"])]
        plain = home["extension"] == "none"
        home = home[plain | ~home["model_id"].isin(home.loc[plain, "model_id"])]
        sums = home[home["status"] == "ok"].groupby(by, observed=True)[["value_sum", "n"]].sum()
        failed = sums.index[sums["value_sum"] / sums["n"] < MIN_ACCURACY]
        closed |= ~judged & keys.isin(failed)
        judged |= keys.isin(pd.MultiIndex.from_frame(rows.loc[asked, by].drop_duplicates()))
    return rows.assign(status=rows["status"].mask(closed & (rows["status"] == "ok"), "not_learned"))
