"""The gate of retrieval: from a model that has not learned a task where it was trained, nothing is concluded."""

import pandas as pd

GATE = 0.9


def close(rows: pd.DataFrame) -> pd.DataFrame:
    """Exact-match rows of a model whose share at its training length is under GATE become `not_learned`.

    Its rows without extension decide, for its extensions too; a fine-tuned model has none and is judged by the
    extension that it was tuned with. A model that was never asked at its training length is not judged.
    """
    asked = rows["metric"] == "exact_match"
    by = ["model", "task", "variant"]
    home = rows[asked & (rows["eval_len"] == rows["train_len"])]
    plain = home["extension"] == "none"
    home = home[plain | ~home["model"].isin(home.loc[plain, "model"])]
    sums = home[home["status"] == "ok"].groupby(by)[["value", "n"]].sum()
    failed = sums.index[sums["value"] / sums["n"] < GATE]
    tasks = rows.loc[asked, ["task"]].drop_duplicates()["task"]
    judged = rows["task"].isin(tasks) & (rows["status"] == "ok")
    hit = judged & pd.MultiIndex.from_frame(rows[by]).isin(failed)
    return rows.assign(status=rows["status"].mask(hit, "not_learned"))
