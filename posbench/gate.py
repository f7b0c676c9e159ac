"""The gate of retrieval: from a model that has not learned a task where it was trained, nothing is concluded."""

import pandas as pd

GATE = 0.9


def close(rows: pd.DataFrame) -> pd.DataFrame:
    """Exact-match rows of a model whose share at its training length is under GATE become `not_learned`.

    The model's own rows decide, without extension, and decide for its extensions too. A model that was never
    asked at its training length is not judged.
    """
    asked = rows["metric"] == "exact_match"
    home = rows[asked & (rows["eval_len"] == rows["train_len"]) & (rows["extension"] == "none")]
    by = ["model", "task", "variant"]
    sums = home[home["status"] == "ok"].groupby(by)[["value", "n"]].sum()
    failed = sums.index[sums["value"] / sums["n"] < GATE]
    tasks = rows.loc[asked, ["task"]].drop_duplicates()["task"]
    judged = rows["task"].isin(tasks) & (rows["status"] == "ok")
    hit = judged & pd.MultiIndex.from_frame(rows[by]).isin(failed)
    return rows.assign(status=rows["status"].mask(hit, "not_learned"))
