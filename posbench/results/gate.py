"""The gate of retrieval: from a model that has not learned a task where it was trained, nothing is concluded."""

import pandas as pd

GATE = 0.9
ACCURACIES = ("exact_match", "substring_match")  # the first that a task has decides


def close(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a task whose accuracy at the model's training length is under GATE become `not_learned`.

    Each protocol and variant of a task is judged by itself. A model's rows without extension decide, for its
    extensions too; a fine-tuned model has none and is judged by the extension that it was tuned with. A model
    that was never asked at its training length is not judged.
    """
    by = ["model", "task", "protocol", "variant"]
    keys = pd.MultiIndex.from_frame(rows[by])
    closed = pd.Series(False, index=rows.index)
    judged = pd.Series(False, index=rows.index)
    for metric in ACCURACIES:
        asked = (rows["metric"] == metric) & ~judged
        home = rows[asked & (rows["eval_len"] == rows["train_len"])]
        plain = home["extension"] == "none"
        home = home[plain | ~home["model"].isin(home.loc[plain, "model"])]
        sums = home[home["status"] == "ok"].groupby(by, observed=True)[["value", "n"]].sum()
        failed = sums.index[sums["value"] / sums["n"] < GATE]
        closed |= ~judged & keys.isin(failed)
        judged |= keys.isin(pd.MultiIndex.from_frame(rows.loc[asked, by].drop_duplicates()))
    return rows.assign(status=rows["status"].mask(closed & (rows["status"] == "ok"), "not_learned"))
