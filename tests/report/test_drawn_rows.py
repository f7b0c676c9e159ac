"""Reports of drawn experiments: any mix of series, seeds, documents and statuses has a report."""

import random

import numpy as np
import pandas as pd
import pytest
from synthetic_rows import ORDER, TRAIN_LEN, synthetic_rows
from test_figure_kinds import config

from posbench.report.report_writer import write_report
from posbench.results.rows import STATUSES

TASKS = ["key_value", "perplexity"]
FIGURES = [
    config(name) for name in ("retrieval_by_position", "retrieval_heat_map", "fixed_targets", "extensions")
]


def drawn_rows(seed: int) -> pd.DataFrame:
    """Rows of an experiment, with points that failed, points without rows, and documents that some points lack.

    Documents are few, or more than the 127 that a byte can count.
    """
    draw = random.Random(seed)
    documents = draw.choice([1, 3, 130])
    schemes = draw.sample(ORDER, draw.choice([1, 2, 3]))
    rows = synthetic_rows(draw.choice([1, 2, 3]), documents, documents, schemes)
    if draw.random() < 0.5:
        rows = rows[rows["extension"] == "none"]
    rows = rows[rows["task"].isin(draw.choice([["key_value"], ["key_value"], ["perplexity"], TASKS]))]
    failing = draw.choice([0.2, 1.0])
    points = []
    for _, series in rows.groupby(["scheme", "extension", "task"]):
        statuses = {near: draw.choice(STATUSES) for near in (True, False)}
        for (_, length), point in series.groupby(["train_seed", "eval_len"]):
            chosen = with_status(point, statuses[length == TRAIN_LEN]) if draw.random() < failing else point
            names = sorted(set(chosen["doc_id"]))
            kept = draw.choice([len(names)] * 8 + [(len(names) + 1) // 2, 0])
            points.append(chosen[chosen["doc_id"].isin(draw.sample(names, kept))])
    return pd.concat(points)


def with_status(point: pd.DataFrame, status: str) -> pd.DataFrame:
    """The rows of a point as an evaluator writes them under a status: without values unless the model was evaluated."""
    if status in ("ok", "not_learned"):
        return point.assign(status=status)
    return point.drop_duplicates("metric").assign(status=status, doc_id="", n=0, value_sum=np.nan)


@pytest.mark.parametrize(
    "seed", [0, 1, 122, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 16))]
)
def test_drawn_experiments_have_a_report(tmp_path, seed):
    """Fault: an experiment of one model that had not learned its task ended in a traceback."""
    assert write_report(drawn_rows(seed), FIGURES, tmp_path, ORDER)
