"""Depth, the place of the gold record from first (0) to last (1), in equal bins."""

import numpy as np
import pandas as pd

from posbench.errors import ConfigError


def binned(rows: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Rows whose depth is the middle of its bin, so that lengths with more records compare with short ones."""
    if not isinstance(bins, int) or bins < 1:
        raise ConfigError(f"bins is {bins!r}: give a whole number of at least 1, such as 8")
    return rows.assign(depth=(np.floor(rows["depth"] * bins).clip(upper=bins - 1) + 0.5) / bins)
