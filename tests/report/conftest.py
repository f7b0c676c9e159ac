"""Synthetic rows of an experiment, with one seed and with three seeds."""

import pandas as pd
import pytest
from synthetic_rows import synthetic_rows


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    return synthetic_rows(seeds=1, documents=16, contexts=8)


@pytest.fixture(scope="session")
def rows_of_three_seeds() -> pd.DataFrame:
    return synthetic_rows(seeds=3, documents=8, contexts=4, schemes=("alibi", "learned"))
