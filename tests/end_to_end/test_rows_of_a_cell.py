"""Rows under runtime settings: another kernel is measured anew; the batch size may change the seventh digit.

runtime.kernel=dense was once answered with stored rows of sdpa, and rows were said not to depend on the batch at all.
"""

import shutil

import numpy as np
import pandas as pd
import pytest

SMALL = (
    "experiment=miniature",
    "runtime.launcher=inline",
    "grid.scheme=[rope]",
    "grid.extension=[]",
    "train.steps=6",
    "~evaluate.prefix",
    "~evaluate.attention",
    "figures=[]",
)
DIGIT = 1e-5  # as docs/tasks.md says


@pytest.mark.slow
def test_a_kernel_and_a_batch_of_one(script, tmp_path):
    results = tmp_path / "results"

    def rows(*overrides: str) -> pd.DataFrame:
        result = script("sweep", *SMALL, *overrides)
        assert result.code == 0, result
        rows.out = result.out
        return pd.read_parquet(results / "miniature" / "rows.parquet")

    first = rows()
    assert set(first["kernel"]) == {"sdpa"}
    assert set(rows("runtime.kernel=dense")["kernel"]) == {"dense"}
    assert ", 0 to train" in rows.out
    assert ", 0 to measure" not in rows.out
    assert set(rows("runtime.kernel=dense")["kernel"]) == {"dense"}
    assert ", 0 to measure" in rows.out
    shutil.rmtree(results / "cells")
    one = rows("runtime.max_tokens_per_batch=1")
    np.testing.assert_allclose(one["value_sum"], first["value_sum"], rtol=DIGIT, atol=DIGIT)
    others = [name for name in first if name != "value_sum"]
    pd.testing.assert_frame_equal(one[others], first[others])
