"""Bins of depth, the relative position of the queried record from first (0) to last (1)."""

import numpy as np
import pandas as pd

from posbench.errors import ConfigError


def binned(rows: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Returns rows with depths rounded to the centres of equal bins, comparable between context lengths.

    Raises:
        ConfigError: `bins` is not a positive integer.
    """
    if not isinstance(bins, int) or bins < 1:
        raise ConfigError(f"bins is {bins!r}: give a whole number of at least 1, such as 8")
    return rows.assign(depth=(np.floor(rows["depth"] * bins).clip(upper=bins - 1) + 0.5) / bins)


def bins_note(bins: int, mark: str = "point") -> str:
    """Returns the sentence of a caption about bins of depth."""
    return f"Each {mark} is the mean over one of {bins} equal parts of the positions, from first to last."
